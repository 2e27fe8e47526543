/* A process has an entry for each open file of a driver, and several of them may be one client of it (a copied descriptor, a fork):
 * drm-client-id tells them apart, per card (drm-pdev). Which keys there are depends on driver and kernel: amdgpu says
 * drm-memory-vram, newer kernels and other drivers drm-resident-vram or vram0; system memory (gtt, system) is not a card's. What
 * ROCm takes goes past them, through /dev/kfd, which counts in a folder of its own. */
#include "server/memory/card_use.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_MAX 64
#define FILE_MAX_BYTES 8192

struct client {
    char card[32];
    uint64_t id, bytes;
};

struct clients {
    struct client list[CLIENTS_MAX];
    int count;
};

/* The value of a line "key:\tvalue"; NULL: it is another line. */
static const char *value_of(const char *line, const char *key)
{
    size_t n = strlen(key);

    if (strncmp(line, key, n) != 0 || line[n] != ':')
        return NULL;
    return line + n + 1 + strspn(line + n + 1, " \t");
}

static uint64_t bytes_of(const char *value)
{
    char *unit;
    uint64_t n = strtoull(value, &unit, 10);

    unit += strspn(unit, " ");
    return n << (str_has_prefix(unit, "KiB")   ? 10
                 : str_has_prefix(unit, "MiB") ? 20
                                               : 0);
}

static void take_line(struct client *c, const char *line)
{
    static const char *const keys[] = {"drm-memory-vram", "drm-resident-vram",
                                       "drm-resident-vram0"};
    const char *value = value_of(line, "drm-pdev");

    if (value)
        snprintf(c->card, sizeof(c->card), "%.*s", (int)strcspn(value, "\n"), value);
    else if ((value = value_of(line, "drm-client-id")))
        c->id = strtoull(value, NULL, 10);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if ((value = value_of(line, keys[i])) && bytes_of(value) > c->bytes)
            c->bytes = bytes_of(value);
}

static void add_client(struct clients *all, const struct client *c)
{
    for (int i = 0; i < all->count; i++)
        if (all->list[i].id == c->id && !strcmp(all->list[i].card, c->card))
            return;
    if (all->count < CLIENTS_MAX)
        all->list[all->count++] = *c;
}

static void add_file(struct clients *all, const char *path)
{
    struct buf text = {0};
    struct client c = {.id = 0};

    if (!file_read(path, FILE_MAX_BYTES, &text, NULL))
        for (const char *line = buf_str(&text); line && *line;
             line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
            take_line(&c, line);
    if (c.card[0])
        add_client(all, &c);
    buf_release(&text);
}

/* Calls for each entry of a folder whose name begins so; the path is whole. */
static void each_file(const char *folder, const char *prefix,
                      void (*each)(void *data, const char *path), void *data)
{
    DIR *dir = opendir(folder);

    for (struct dirent *d; dir && (d = readdir(dir));) {
        char *path;

        if (d->d_name[0] == '.' || !str_has_prefix(d->d_name, prefix))
            continue;
        path = file_join(folder, d->d_name);
        each(data, path);
        free(path);
    }
    if (dir)
        closedir(dir);
}

static void on_fdinfo(void *data, const char *path)
{
    add_file(data, path);
}

/* One file for each card, a number of bytes in it. */
static void on_kfd(void *data, const char *path)
{
    struct buf text = {0};

    if (!file_read(path, FILE_MAX_BYTES, &text, NULL))
        *(uint64_t *)data += strtoull(buf_str(&text), NULL, 10);
    buf_release(&text);
}

bool card_use_of_process(const char *root, int pid, uint64_t *ret)
{
    struct clients *all = mem_zalloc(sizeof(*all));
    char *fdinfo = mem_printf("%s/proc/%d/fdinfo", root, pid);
    char *kfd = mem_printf("%s/sys/class/kfd/kfd/proc/%d", root, pid);
    uint64_t bytes = 0;

    each_file(fdinfo, "", on_fdinfo, all);
    for (int i = 0; i < all->count; i++)
        bytes += all->list[i].bytes;
    each_file(kfd, "vram_", on_kfd, &bytes);
    free(kfd);
    free(fdinfo);
    free(all);
    *ret = bytes;
    return bytes > 0;
}
