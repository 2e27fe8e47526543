/* Everything comes from files that the kernel makes up on reading, so a read neither blocks nor fails half-way. `root`
 * stands before each path, so that tests can show a machine that is not there.
 *
 * "Available" is the smaller of what the machine and what the control group leave: inside a container with a
 * limit, MemAvailable alone would promise memory that the kernel then refuses by killing. Both generations of control
 * groups are read; limits of parent groups count too, so the path is walked upwards. Pages of files can be read again,
 * so they count as available there, the recently used ones too, as the machine's MemAvailable counts them.
 */
#include "server/memory/memory.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PROC_FILE_MAX (4 * 1024 * 1024)

/* The file's text, "" when there is none. Release the buffer. */
static const char *read_text(struct buf *b, const char *root, const char *path)
{
    char *full = mem_printf("%s%s", root, path);
    int rc = file_read(full, PROC_FILE_MAX, b, NULL);

    free(full);
    return rc ? "" : buf_str(b);
}

/* A file that holds one number ("max" and nothing are false). */
static bool read_number(const char *root, const char *path, uint64_t *ret)
{
    struct buf b = {0};
    const char *text = read_text(&b, root, path);
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    bool ok = end != text;

    buf_release(&b);
    if (ok)
        *ret = n;
    return ok;
}

/* ---- memory ---- */

/* "MemTotal:       16384 kB" in bytes */
static uint64_t meminfo_value(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

struct group_files {
    const char *mount; /* of this generation, below root */
    const char *limit;
    const char *usage;
    const char
        *prefix; /* of the lines of memory.stat that count the groups below, too */
};

/* "total_inactive_file 4096" at the beginning of a line */
static uint64_t stat_value(const char *stat, const char *prefix, const char *key)
{
    char *line = mem_printf("\n%s%s", prefix, key);
    const char *at = strstr(stat, line);
    uint64_t n = 0;

    if (at)
        n = strtoull(at + strlen(line), NULL, 10);
    else if (!strncmp(stat, line + 1, strlen(line + 1)))
        n = strtoull(stat + strlen(line + 1), NULL, 10);
    free(line);
    return n;
}

/* Narrows *m to the group at `path` and every one above it. */
static void apply_group(const char *root, const struct group_files *g, const char *path,
                        struct memory_now *m)
{
    char *at = mem_strdup(path);

    for (;;) {
        char *limit_file = mem_printf("%s%s%s", g->mount, at, g->limit);
        char *usage_file = mem_printf("%s%s%s", g->mount, at, g->usage);
        char *stat_file = mem_printf("%s%s/memory.stat", g->mount, at);
        uint64_t limit, used;

        if (read_number(root, limit_file, &limit) && limit < m->total &&
            read_number(root, usage_file, &used)) {
            struct buf b = {0};
            const char *stat = read_text(&b, root, stat_file);
            uint64_t cached = stat_value(stat, g->prefix, "inactive_file ") +
                              stat_value(stat, g->prefix, "active_file ");
            uint64_t firm = used > cached ? used - cached : 0;
            uint64_t left = limit > firm ? limit - firm : 0;

            buf_release(&b);
            if (!m->limit || limit < m->limit)
                m->limit = limit;
            if (left < m->available)
                m->available = left;
        }
        free(limit_file);
        free(usage_file);
        free(stat_file);
        char *slash = strrchr(at, '/');

        if (!slash)
            break;
        *slash = '\0';
    }
    free(at);
}

static void apply_control_groups(const char *root, struct memory_now *m)
{
    static const struct group_files unified = {"/sys/fs/cgroup", "/memory.max",
                                               "/memory.current", ""};
    static const struct group_files legacy = {"/sys/fs/cgroup/memory",
                                              "/memory.limit_in_bytes",
                                              "/memory.usage_in_bytes", "total_"};
    struct buf b = {0};
    char *text = mem_strdup(read_text(&b, root, "/proc/self/cgroup"));
    char *rest = text;

    /* "0::/user.slice/..." or "7:memory:/docker/..." */
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;

        if (!path)
            continue;
        *path++ = '\0';
        if (!strcmp(path, "/"))
            path = line + strlen(line); /* "": the top itself */
        if (!strcmp(line, "0:"))
            apply_group(root, &unified, path, m);
        else if (strstr(controllers, "memory"))
            apply_group(root, &legacy, path, m);
    }
    free(text);
    buf_release(&b);
}

int memory_read(const char *root, struct memory_now *ret)
{
    struct buf b = {0};
    const char *text = read_text(&b, root, "/proc/meminfo");
    struct memory_now m = {
        .total = meminfo_value(text, "MemTotal:"),
        .available = meminfo_value(text, "MemAvailable:"),
    };

    buf_release(&b);
    if (!m.total)
        return -1;
    apply_control_groups(root, &m);
    *ret = m;
    return 0;
}

uint64_t memory_of_process(const char *root, int pid)
{
    char path[48];
    struct buf b = {0};
    unsigned long long resident = 0;

    snprintf(path, sizeof(path), "/proc/%d/statm", pid);
    if (sscanf(read_text(&b, root, path), "%*u %llu", &resident) != 1)
        resident = 0;
    buf_release(&b);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* "RssAnon:\t  1234 kB" */
static uint64_t status_bytes(const char *status, const char *field)
{
    const char *at = strstr(status, field);
    unsigned long long kb = 0;

    if (!at || sscanf(at + strlen(field), ": %llu kB", &kb) != 1)
        return 0;
    return (uint64_t)kb * 1024;
}

int memory_use_of_process(const char *root, int pid, struct memory_use *ret)
{
    char path[48];
    struct buf b = {0};

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    const char *status = read_text(&b, root, path);

    *ret = (struct memory_use){.resident = status_bytes(status, "\nVmRSS"),
                               .anonymous = status_bytes(status, "\nRssAnon"),
                               .file = status_bytes(status, "\nRssFile"),
                               .swapped = status_bytes(status, "\nVmSwap")};
    buf_release(&b);
    return ret->resident ? 0 : -1;
}

uint64_t memory_cpu_ms_of_process(const char *root, int pid)
{
    char path[48];
    struct buf b = {0};
    unsigned long long user = 0, system = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    /* the second field is the program's name in brackets and may hold anything, brackets too */
    const char *after_name = strrchr(read_text(&b, root, path), ')');

    if (!after_name ||
        sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
               &user, &system) != 2)
        user = system = 0;
    buf_release(&b);
    return (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* ---- the processor ---- */

/* The value of the first "key : value" line at or after `text`, cut at the line's end; "" when absent. */
static void cpuinfo_value(const char *text, const char *key, char *ret, size_t size)
{
    const char *at = strstr(text, key);
    const char *colon = at ? strpbrk(at, ":\n") : NULL;

    ret[0] = '\0';
    if (!colon || *colon != ':')
        return;
    colon += 1 + strspn(colon + 1, " \t");
    snprintf(ret, size, "%.*s", (int)strcspn(colon, "\n"), colon);
}

/* Physical cores: different (physical id, core id) pairs; 0 when the kernel does not say (arm64). */
static int count_cores(const char *cpuinfo)
{
    int count = 0, room = 0;
    long *seen = NULL;

    for (const char *at = cpuinfo; (at = strstr(at, "physical id")); at++) {
        char package[16], core[16];

        cpuinfo_value(at, "physical id", package, sizeof(package));
        cpuinfo_value(at, "core id", core, sizeof(core));
        long id = strtol(package, NULL, 10) << 16 | strtol(core, NULL, 10);
        int i = 0;

        while (i < count && seen[i] != id)
            i++;
        if (i < count)
            continue;
        if (count == room) {
            room = room ? room * 2 : 64;
            seen = mem_realloc(seen, (size_t)room * sizeof(*seen));
        }
        seen[count++] = id;
    }
    free(seen);
    return count;
}

static int usable_threads(void)
{
    cpu_set_t *set = CPU_ALLOC(8192);
    size_t size = CPU_ALLOC_SIZE(8192);
    int n = set && !sched_getaffinity(0, size, set) ? CPU_COUNT_S(size, set) : 0;

    CPU_FREE(set);
    return n > 0 ? n : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* What matters for the speed of matrices, as /proc/cpuinfo spells it. */
static json_t *speed_features(const char *cpuinfo)
{
    static const char *const wanted[] = {
        "avx2",        "f16c",     "fma",      "avx512f",  "avx512_vnni",
        "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
        "asimd",       "asimddp",  "sve",      "bf16",     "i8mm"};
    const char *at = strstr(cpuinfo, "flags\t");
    json_t *features = json_array();

    if (!at)
        at = strstr(cpuinfo, "Features\t");
    if (!at)
        return features;
    char *line = mem_printf("%.*s ", (int)strcspn(at, "\n"), at);

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        char word[32];

        snprintf(word, sizeof(word), " %s ", wanted[i]);
        if (strstr(line, word))
            json_array_append_new(features, json_string(wanted[i]));
    }
    free(line);
    return features;
}

json_t *memory_processor_json(const char *root)
{
    struct buf b = {0};
    const char *text = read_text(&b, root, "/proc/cpuinfo");
    int threads = usable_threads(), cores = count_cores(text);
    struct utsname machine = {0};
    char name[128];

    cpuinfo_value(text, "model name", name, sizeof(name));
    (void)uname(&machine);
    json_t *processor =
        json_pack("{s:s, s:s, s:i, s:i, s:o}", "name",
                  name[0] && str_is_utf8(name, strlen(name)) ? name : "unknown",
                  "architecture", machine.machine, "cores", cores ? cores : threads,
                  "threads", threads, "features", speed_features(text));

    buf_release(&b);
    return processor;
}
