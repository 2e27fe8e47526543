/* Graphics cards: the amdgpu driver says in /sys how much memory a card has and uses; NVIDIA's says it through a library
 * (nvml.c), and without that only the card's name, in /proc; Intel's says none. What is not said is left out of the plan and null
 * in answers, never a guess.
 */
#include "server/memory/devices.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/memory/card_use.h"
#include "server/memory/listed.h"
#include "server/memory/memory.h"
#include "server/memory/nvml.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (64 * 1024)

struct devices {
    struct plan_device simulated[PLAN_DEVICES_MAX]; /* cards from 1 on */
    int simulated_count;                            /* of cards */
    struct nvml *nvml;
    struct listed listed[PLAN_DEVICES_MAX];
    int listed_count;
};

struct gpus {
    const char *root;
    struct gpu *list;
    int count, max;
};

/* ---- what the kernel says ---- */

static const char *read_text(struct buf *b, const char *root, const char *path)
{
    char *full = mem_printf("%s%s", root, path);
    int rc = file_read(full, FILE_MAX_BYTES, b, NULL);

    free(full);
    return rc ? "" : buf_str(b);
}

static bool read_card_number(const struct gpus *g, const char *card, const char *what,
                             uint64_t *ret)
{
    char *path = mem_printf("/sys/class/drm/%s/device/%s", card, what);
    struct buf b = {0};
    const char *text = read_text(&b, g->root, path);
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    bool ok = end != text;

    free(path);
    buf_release(&b);
    if (ok)
        *ret = n;
    return ok;
}

/* Intel's graphics inside a processor are device 2 of the first bus, in every generation. */
static bool is_at_intels_own_place(const struct gpus *g, const char *card)
{
    char *path = mem_printf("/sys/class/drm/%s/device/uevent", card);
    struct buf b = {0};
    bool is = strstr(read_text(&b, g->root, path), "PCI_SLOT_NAME=0000:00:02.0");

    free(path);
    buf_release(&b);
    return is;
}

static void add_drm_card(struct gpus *g, const char *card)
{
    struct gpu *gpu = &g->list[g->count];
    uint64_t vendor = 0, device = 0, total = 0, used = 0;

    if (!read_card_number(g, card, "vendor", &vendor) ||
        (vendor != 0x1002 && vendor != 0x8086))
        return; /* NVIDIA's come from its own list; displays of servers are no help */
    (void)read_card_number(g, card, "device", &device);
    *gpu = (struct gpu){0};
    snprintf(gpu->vendor, sizeof(gpu->vendor), "%s",
             vendor == 0x1002 ? "AMD" : "Intel");
    snprintf(gpu->name, sizeof(gpu->name), "%s graphics %04" PRIx64, gpu->vendor,
             device);
    gpu->is_known = read_card_number(g, card, "mem_info_vram_total", &total) &&
                    read_card_number(g, card, "mem_info_vram_used", &used) &&
                    used <= total;
    gpu->total = total;
    gpu->free = gpu->is_known ? total - used : 0;
    gpu->is_integrated = vendor == 0x8086 && is_at_intels_own_place(g, card);
    g->count++;
}

/* "Model: \t\t NVIDIA ..." */
static void add_nvidia_card(struct gpus *g, const char *card)
{
    char *path = mem_printf("/proc/driver/nvidia/gpus/%s/information", card);
    struct gpu *gpu = &g->list[g->count];
    struct buf b = {0};
    const char *at = strstr(read_text(&b, g->root, path), "Model:");

    if (at) {
        at += sizeof("Model:") - 1;
        at += strspn(at, " \t");
        *gpu = (struct gpu){.vendor = "NVIDIA"};
        snprintf(gpu->name, sizeof(gpu->name), "%.*s", (int)strcspn(at, "\n"), at);
        g->count += gpu->name[0] && str_is_utf8(gpu->name, strlen(gpu->name));
    }
    buf_release(&b);
    free(path);
}

static void each_entry(struct gpus *g, const char *folder, const char *prefix,
                       void (*add)(struct gpus *g, const char *name))
{
    char *path = mem_printf("%s%s", g->root, folder);
    DIR *dir = opendir(path);

    free(path);
    for (struct dirent *d; dir && g->count < g->max && (d = readdir(dir));)
        if (d->d_name[0] != '.' && str_has_prefix(d->d_name, prefix) &&
            strlen(d->d_name) < 32 && !strchr(d->d_name, '-'))
            add(g, d->d_name);
    if (dir)
        closedir(dir);
}

int devices_gpus(const struct devices *d, const char *root, struct gpu *ret, int max)
{
    struct gpus g = {.root = root, .list = ret, .max = max};

    if (d && d->nvml)
        g.count = nvml_gpus(d->nvml, ret, max);
    else
        each_entry(&g, "/proc/driver/nvidia/gpus", "", add_nvidia_card);
    each_entry(&g, "/sys/class/drm", "card", add_drm_card);
    return g.count;
}

static json_t *number_or_null(bool known, uint64_t n)
{
    return known ? json_integer((json_int_t)n) : json_null();
}

json_t *devices_gpus_json(const struct devices *d, const char *root)
{
    struct gpu gpus[PLAN_DEVICES_MAX - 1];
    int count = devices_gpus(d, root, gpus, PLAN_DEVICES_MAX - 1);
    json_t *list = json_array();

    for (int i = 0; i < count; i++) {
        const struct gpu *g = &gpus[i];

        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "name", g->name,
                                              "vendor", g->vendor, "memory_total",
                                              number_or_null(g->total > 0, g->total),
                                              "memory_free",
                                              number_or_null(g->is_known, g->free)));
    }
    return list;
}

/* ---- all of them ---- */

static int simulate(struct devices *d, const char *item, struct err *err)
{
    const char *equals = strchr(item, '=');
    size_t length = equals ? (size_t)(equals - item) : 0;
    struct plan_device *device;
    int64_t bytes;

    if (!length || length >= sizeof(device->name))
        return err_set(err, ERR_INVALID,
                       "--simulate-device must be a name and a size, like ram=8G or "
                       "card=4G, not \"%.60s\"",
                       item);
    if (str_to_size(equals + 1, "--simulate-device NAME=BYTES", 1, INT64_C(1) << 50,
                    &bytes, err))
        return -1;
    if (length == 3 && !strncmp(item, "ram", 3)) {
        device = &d->simulated[PLAN_RAM];
    } else if (d->simulated_count + 1 == PLAN_DEVICES_MAX) {
        return err_set(err, ERR_INVALID,
                       "--simulate-device: more than %d graphics cards",
                       PLAN_DEVICES_MAX - 1);
    } else {
        device = &d->simulated[++d->simulated_count];
    }
    snprintf(device->name, sizeof(device->name), "%.*s", (int)length, item);
    device->total = device->free = (uint64_t)bytes;
    device->is_simulated = true;
    device->is_usable = device != &d->simulated[PLAN_RAM];
    return 0;
}

int devices_open(struct devices **ret, char *const *simulated, size_t count,
                 struct err *err)
{
    struct devices *d = mem_zalloc(sizeof(*d));

    for (size_t i = 0; i < count; i++) {
        if (simulate(d, simulated[i], err)) {
            free(d);
            return -1;
        }
    }
    d->nvml = nvml_open(NVML_LIBRARY);
    *ret = d;
    return 0;
}

void devices_close(struct devices *d)
{
    if (d)
        nvml_close(d->nvml);
    free(d);
}

bool devices_simulate_memory(const struct devices *d)
{
    return d->simulated[PLAN_RAM].is_simulated;
}

void devices_take_listed(struct devices *d, const char *line)
{
    if (d->listed_count < PLAN_DEVICES_MAX &&
        listed_read(line, &d->listed[d->listed_count]))
        d->listed_count++;
}

/* The two have no name in common but the vendor's. A card whose driver says another size than the engine is one that
 * shares the machine's memory (an APU): what lies on it lies in RAM, and is counted there. */
static const struct listed *listed_as(const struct devices *d, const struct gpu *gpu)
{
    for (int i = 0; i < d->listed_count && !gpu->is_integrated; i++) {
        const struct listed *l = &d->listed[i];
        uint64_t more =
            l->total > gpu->total ? l->total - gpu->total : gpu->total - l->total;

        if (strcasestr(l->name, gpu->vendor) &&
            (!gpu->is_known || more <= gpu->total / 8))
            return l;
    }
    return NULL;
}

static int look_at_cards(const struct devices *d, const char *root,
                         struct plan_device *ret)
{
    struct gpu gpus[PLAN_DEVICES_MAX - 1];
    int count = devices_gpus(d, root, gpus, PLAN_DEVICES_MAX - 1), known = 0;

    for (int i = 0; i < count; i++) {
        const struct gpu *gpu = &gpus[i];
        const struct listed *listed = listed_as(d, gpu);

        if (!gpu->is_known && !listed)
            continue;
        ret[known] = (struct plan_device){
            .total = gpu->is_known ? gpu->total : listed->total,
            .free = gpu->is_known ? gpu->free : listed->free,
            .is_observed = gpu->is_known,
            .is_usable = listed != NULL,
        };
        snprintf(ret[known].name, sizeof(ret[known].name), "%.31s", gpu->name);
        known++;
    }
    return known;
}

bool devices_of_process(const struct devices *d, const char *root, int pid,
                        uint64_t *ret)
{
    uint64_t nvidia = 0, others = 0;

    if (d->simulated_count || pid <= 0)
        return false;
    if (d->nvml)
        (void)nvml_of_process(d->nvml, pid, &nvidia);
    (void)card_use_of_process(root, pid, &others);
    *ret = nvidia + others;
    return *ret > 0;
}

int devices_look(const struct devices *d, const char *root, struct plan_device *ret)
{
    struct memory_now now;

    if (devices_simulate_memory(d)) {
        ret[PLAN_RAM] = d->simulated[PLAN_RAM];
    } else {
        if (memory_read(root, &now))
            return 0;
        ret[PLAN_RAM] = (struct plan_device){.name = "RAM",
                                             .is_observed = true,
                                             .total = now.limit ? now.limit : now.total,
                                             .free = now.available};
    }
    if (!d->simulated_count)
        return 1 + look_at_cards(d, root, ret + 1);
    memcpy(ret + 1, d->simulated + 1,
           (size_t)d->simulated_count * sizeof(*d->simulated));
    return 1 + d->simulated_count;
}
