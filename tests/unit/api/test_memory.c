#include "unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/memory/card_use.h"
#include "server/memory/devices.h"
#include "server/memory/listed.h"
#include "server/memory/memory.h"
#include "server/memory/nvml.h"

#include <unistd.h>

#define GIB (UINT64_C(1) << 30)

/* A machine made of files under /tmp. */
static char root[64];

static void put(const char *path, const char *text)
{
    char *full = mem_printf("%s%s", root, path);
    char *folder = mem_strndup(full, (size_t)(strrchr(full, '/') - full));

    assert_int_equal(file_make_folder(folder, 0755, NULL), 0);
    assert_int_equal(file_write_atomic(full, text, strlen(text), 0644, NULL), 0);
    free(folder);
    free(full);
}

static int new_machine(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/mysti-memory-XXXXXX");
    assert_non_null(mkdtemp(root));
    put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1000 kB\n"
                         "MemAvailable:   12582912 kB\n");
    return 0;
}

static int drop_machine(void **state)
{
    char command[96];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

static void without_a_control_group(void **state)
{
    struct memory_now m;

    (void)state;
    assert_int_equal(memory_read(root, &m), 0);
    assert_int_equal(m.total, 16 * GIB);
    assert_int_equal(m.available, 12 * GIB);
    assert_int_equal(m.limit, 0);
}

static void a_limit_of_a_parent_group_counts(void **state)
{
    struct memory_now m;

    (void)state;
    put("/proc/self/cgroup", "0::/pod/box\n");
    put("/sys/fs/cgroup/pod/box/memory.max", "max\n");
    put("/sys/fs/cgroup/pod/box/memory.current", "1\n");
    put("/sys/fs/cgroup/pod/memory.max", "4294967296\n");
    put("/sys/fs/cgroup/pod/memory.current", "3221225472\n");
    put("/sys/fs/cgroup/pod/memory.stat",
        "anon 1\ninactive_file 536870912\nactive_file 536870912\n"
        "total_inactive_file 7\n");
    assert_int_equal(memory_read(root, &m), 0);
    assert_int_equal(m.limit, 4 * GIB);
    assert_int_equal(m.available, 2 * GIB); /* 4 - (3 - 1 that can be given back) */
}

static void the_older_control_groups(void **state)
{
    struct memory_now m;

    (void)state;
    put("/proc/self/cgroup", "9:cpu:/\n4:memory:/docker/abc\n0::/\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "8589934592\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n");
    assert_int_equal(memory_read(root, &m), 0);
    assert_int_equal(m.limit, 8 * GIB);
    assert_int_equal(m.available, 7 * GIB);
}

static void a_machine_that_says_nothing(void **state)
{
    struct memory_now m;

    (void)state;
    assert_int_equal(memory_read("/nowhere", &m), -1);
    assert_int_equal(memory_of_process("/nowhere", 1), 0);
    json_t *gpus = devices_gpus_json(NULL, "/nowhere");

    assert_int_equal(json_array_size(gpus), 0);
    json_decref(gpus);
}

static void cores_are_counted_once_per_package(void **state)
{
    (void)state;
    put("/proc/cpuinfo",
        "model name\t: Some Processor\nphysical id\t: 0\ncore id\t\t: 0\n"
        "flags\t\t: fpu avx2 avx512f amx_bf16\n\n"
        "physical id\t: 0\ncore id\t\t: 1\n\nphysical id\t: 0\ncore id\t\t: 0\n\n"
        "physical id\t: 1\ncore id\t\t: 0\n");
    json_t *p = memory_processor_json(root);
    char *features = json_dumps(json_object_get(p, "features"), JSON_COMPACT);

    assert_string_equal(json_string_value(json_object_get(p, "name")),
                        "Some Processor");
    assert_int_equal(json_integer_value(json_object_get(p, "cores")), 3);
    assert_string_equal(features, "[\"avx2\",\"avx512f\",\"amx_bf16\"]");
    free(features);
    json_decref(p);
}

static void cards_say_what_their_drivers_say(void **state)
{
    (void)state;
    put("/sys/class/drm/card0/device/vendor", "0x1002\n");
    put("/sys/class/drm/card0/device/device", "0x744c\n");
    put("/sys/class/drm/card0/device/mem_info_vram_total", "25753026560\n");
    put("/sys/class/drm/card0/device/mem_info_vram_used", "1000000000\n");
    put("/sys/class/drm/card0-DP-1/status", "connected\n");
    put("/sys/class/drm/card1/device/vendor", "0x1a03\n"); /* a server's display */
    put("/proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA H200\nIRQ:   \t\t 16\n");
    json_t *gpus = devices_gpus_json(NULL, root);
    char *dump = json_dumps(gpus, JSON_COMPACT | JSON_SORT_KEYS);

    assert_string_equal(
        dump, "[{\"memory_free\":null,\"memory_total\":null,\"name\":\"NVIDIA H200\","
              "\"vendor\":\"NVIDIA\"},{\"memory_free\":24753026560,\"memory_total\":"
              "25753026560,\"name\":\"AMD graphics 744c\",\"vendor\":\"AMD\"}]");
    free(dump);
    json_decref(gpus);
}

static void cards_of_the_driver_s_library(void **state)
{
    struct gpu gpus[4];
    struct nvml *n = nvml_open(FAKE_NVML);
    uint64_t bytes;

    (void)state;
    assert_non_null(n);
    assert_int_equal(nvml_gpus(n, gpus, 4), 2); /* the middle one of three has failed */
    assert_string_equal(gpus[0].name, "NVIDIA Fake 1");
    assert_true(gpus[0].is_known);
    assert_int_equal(gpus[0].total, 8 * GIB);
    assert_int_equal(gpus[0].free, 6 * GIB);
    assert_string_equal(gpus[1].name, "NVIDIA 2"); /* it does not say its name */
    assert_false(gpus[1].is_known);
    assert_int_equal(nvml_gpus(n, gpus, 1), 1);
    assert_true(nvml_of_process(n, 77, &bytes));
    assert_int_equal(bytes, 7 * GIB); /* 4 on the first, which names it twice, and 3 */
    assert_false(nvml_of_process(n, 78, &bytes));
    assert_false(nvml_of_process(n, 79, &bytes));
    nvml_close(n);
    assert_null(nvml_open("/nowhere/libnvidia-ml.so.1"));
    assert_null(nvml_open("libm.so.6")); /* a library that is another one */
}

static void what_a_process_has_on_cards(void **state)
{
    uint64_t bytes;

    (void)state;
    assert_false(card_use_of_process(root, 5, &bytes));
    put("/proc/5/fdinfo/0", "pos:\t0\nflags:\t0100002\n");
    assert_false(card_use_of_process(root, 5, &bytes));
    put("/proc/5/fdinfo/7", "drm-driver:\tamdgpu\ndrm-client-id:\t9\ndrm-pdev:\t"
                            "0000:03:00.0\ndrm-memory-vram:\t2097152 KiB\n"
                            "drm-memory-gtt: \t500 KiB\n");
    put("/proc/5/fdinfo/8", "drm-client-id:\t9\ndrm-pdev:\t0000:03:00.0\n"
                            "drm-memory-vram:\t2097152 KiB\n"); /* the same once more */
    put("/proc/5/fdinfo/9", "drm-client-id:\t9\ndrm-pdev:\t0000:04:00.0\n"
                            "drm-total-vram0:\t9 MiB\ndrm-resident-vram0:\t1024 MiB\n");
    assert_true(card_use_of_process(root, 5, &bytes));
    assert_int_equal(bytes, 3 * GIB);
    put("/sys/class/kfd/kfd/proc/5/vram_4242", "1073741824\n");
    put("/sys/class/kfd/kfd/proc/5/pasid", "32773\n");
    assert_true(card_use_of_process(root, 5, &bytes));
    assert_int_equal(bytes, 4 * GIB);
}

static void lines_of_the_engine_s_list(void **state)
{
    static const char *const none[] = {
        "",
        "Available devices:",
        "  (none)",
        "  Vulkan0: NVIDIA H100 (81559 MiB, 80994 MiB)",
        "  Vulkan0: NVIDIA H100 (81559 MiB, 80994 MiB free",
        "  Vulkan0: (81559 MiB, 80994 MiB free)",
        "  : NVIDIA (81559 MiB, 80994 MiB free)",
        "(81559 MiB, 80994 MiB free) Vulkan0: NVIDIA",
        "  Vulkan0: NVIDIA (80994 MiB, 81559 MiB free)",
        "  Vulkan0: NVIDIA (99999999999999999 MiB, 80994 MiB free)",
    };
    struct listed l;

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_false(listed_read(none[i], &l));
    assert_true(listed_read(
        "  Vulkan1: AMD Radeon RX 6800 (RADV NAVI21) (16368 MiB, 15360 MiB free)", &l));
    assert_string_equal(l.name, "AMD Radeon RX 6800 (RADV NAVI21)");
    assert_int_equal(l.total, (uint64_t)16368 << 20);
    assert_int_equal(l.free, 15 * GIB);
}

static const struct plan_device *card_named(const struct plan_device *list, int count,
                                            const char *name)
{
    for (int i = 1; i < count; i++)
        if (strstr(list[i].name, name))
            return &list[i];
    return NULL;
}

/* Usable is what the engine lists; where the driver is silent the engine's numbers count; what shares the machine's memory is none. */
static void cards_that_the_engine_can_use(void **state)
{
    struct plan_device list[PLAN_DEVICES_MAX];
    const struct plan_device *card;
    struct devices *d;
    struct err err;
    int count;

    (void)state;
    put("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n");
    put("/sys/class/drm/card0/device/vendor", "0x1002\n");
    put("/sys/class/drm/card0/device/device", "0x744c\n");
    put("/sys/class/drm/card0/device/mem_info_vram_total", "25753026560\n");
    put("/sys/class/drm/card0/device/mem_info_vram_used", "1000000000\n");
    put("/sys/class/drm/card1/device/vendor", "0x8086\n");
    put("/sys/class/drm/card1/device/device", "0x56a0\n");
    put("/sys/class/drm/card1/device/uevent", "PCI_SLOT_NAME=0000:03:00.0\n");
    put("/sys/class/drm/card2/device/vendor", "0x8086\n");
    put("/sys/class/drm/card2/device/device", "0x4680\n");
    put("/sys/class/drm/card2/device/uevent",
        "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0\n");
    assert_int_equal(devices_open(&d, NULL, 0, &err), 0);
    count = devices_look(d, root, list);
    assert_false(card_named(list, count, "744c")->is_usable);
    assert_null(card_named(list, count, "56a0")); /* nobody says how large it is */
    devices_take_listed(d, "Available devices:");
    devices_take_listed(d,
                        "  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, "
                        "23000 MiB free)");
    devices_take_listed(d,
                        "  Vulkan1: Intel(R) Arc(tm) A770 Graphics (DG2) (16256 MiB, "
                        "15000 MiB free)");
    count = devices_look(d, root, list);
    card = card_named(list, count, "744c");
    assert_true(card->is_usable && card->is_observed);
    assert_int_equal(card->free, 24753026560); /* the driver knows it as it is now */
    card = card_named(list, count, "56a0");
    assert_true(card->is_usable && !card->is_observed);
    assert_int_equal(card->total, (uint64_t)16256 << 20);
    assert_int_equal(card->free, (uint64_t)15000 << 20);
    assert_null(card_named(list, count, "4680"));
    put("/sys/class/drm/card0/device/mem_info_vram_total", "536870912\n"); /* an APU */
    put("/sys/class/drm/card0/device/mem_info_vram_used", "1000000\n");
    count = devices_look(d, root, list);
    assert_false(card_named(list, count, "744c")->is_usable);
    devices_close(d);
}

static void simulated_devices_take_the_place_of_real_ones(void **state)
{
    char ram[] = "ram=8G", card[] = "card=2G", bad[] = "card=2X", nameless[] = "=2G";
    char *both[] = {ram, card}, *wrong[] = {bad}, *without[] = {nameless};
    struct plan_device list[PLAN_DEVICES_MAX];
    struct devices *d;
    struct err err = {0};

    (void)state;
    assert_int_equal(devices_open(&d, both, 2, NULL), 0);
    assert_int_equal(devices_look(d, root, list), 2);
    assert_int_equal(list[0].total, 8 * GIB);
    assert_string_equal(list[1].name, "card");
    assert_true(list[1].is_simulated && list[1].free == 2 * GIB);
    devices_close(d);
    put("/sys/class/drm/card0/device/vendor", "0x1002\n");
    put("/sys/class/drm/card0/device/mem_info_vram_total", "25753026560\n");
    put("/sys/class/drm/card0/device/mem_info_vram_used", "1000000000\n");
    assert_int_equal(devices_open(&d, NULL, 0, NULL), 0);
    int count = devices_look(d, root, list); /* this machine may have an NVIDIA card */

    assert_true(count >= 2);
    assert_int_equal(list[0].free, 12 * GIB);
    assert_int_equal(list[count - 1].free, 24753026560);
    devices_close(d);
    assert_int_equal(devices_open(&d, wrong, 1, &err), -1);
    assert_int_equal(devices_open(&d, without, 1, &err), -1);
}

static void this_process_has_a_size(void **state)
{
    (void)state;
    uint64_t bytes = memory_of_process("", getpid());

    assert_true(bytes > 100 * 1024 && bytes < 4 * GIB);
}

static void processor_time_whatever_the_program_is_called(void **state)
{
    (void)state;
    put("/proc/7/stat",
        "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 9 1 1\n");
    uint64_t tick = 1000 / (uint64_t)sysconf(_SC_CLK_TCK);

    assert_int_equal(memory_cpu_ms_of_process(root, 7), 200 * tick);
    assert_int_equal(memory_cpu_ms_of_process(root, 8), 0);
}

int main(void)
{
#define ON_A_MACHINE(test)                                                             \
    cmocka_unit_test_setup_teardown(test, new_machine, drop_machine)
    const struct CMUnitTest tests[] = {
        ON_A_MACHINE(without_a_control_group),
        ON_A_MACHINE(a_limit_of_a_parent_group_counts),
        ON_A_MACHINE(the_older_control_groups),
        ON_A_MACHINE(cores_are_counted_once_per_package),
        ON_A_MACHINE(processor_time_whatever_the_program_is_called),
        ON_A_MACHINE(cards_say_what_their_drivers_say),
        ON_A_MACHINE(what_a_process_has_on_cards),
        cmocka_unit_test(lines_of_the_engine_s_list),
        ON_A_MACHINE(cards_that_the_engine_can_use),
        ON_A_MACHINE(simulated_devices_take_the_place_of_real_ones),
        cmocka_unit_test(cards_of_the_driver_s_library),
        cmocka_unit_test(a_machine_that_says_nothing),
        cmocka_unit_test(this_process_has_a_size),
    };

    return RUN_TESTS(tests);
}
