/* The folders are read again for each prompt with a LoRA: a few milliseconds for thousands of files, and a file that
 * was just put there is found. */
#include "engine/lora/folder.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 6
#define NAMES_MAX 20000

struct names {
    char **all; /* paths below the folder, with their endings */
    size_t count;
};

static bool is_lora_name(const char *name)
{
    static const char *const endings[] = {".safetensors", ".gguf", ".ckpt",
                                          ".pt",          ".pth",  ".bin"};

    for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++)
        if (str_has_suffix(name, endings[i]))
            return true;
    return false;
}

static void add(struct names *n, char *name)
{
    if (n->count % 64 == 0)
        n->all = mem_realloc(n->all, (n->count + 64) * sizeof(*n->all));
    n->all[n->count++] = name;
}

static void read_folder(struct names *n, const char *folder, const char *below,
                        int depth)
{
    char *here = *below ? file_join(folder, below) : mem_strdup(folder);
    DIR *dir = depth < DEPTH_MAX ? opendir(here) : NULL;

    for (struct dirent *d; dir && n->count < NAMES_MAX && (d = readdir(dir));) {
        char *name, *path;
        struct stat st;

        if (d->d_name[0] == '.' || !str_is_utf8(d->d_name, strlen(d->d_name)))
            continue;
        name = *below ? file_join(below, d->d_name) : mem_strdup(d->d_name);
        path = file_join(folder, name);
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
            read_folder(n, folder, name, depth + 1);
        else if (is_lora_name(name)) {
            add(n, name);
            name = NULL;
        }
        free(path);
        free(name);
    }
    if (dir)
        closedir(dir);
    free(here);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "ink" and "ink.safetensors" are the file "ink.safetensors" */
static bool is_meant(const char *file, const char *name)
{
    size_t ending = strrchr(file, '.') ? (size_t)(strrchr(file, '.') - file) : 0;

    return strcmp(file, name) == 0 ||
           (strlen(name) == ending && strncmp(file, name, ending) == 0);
}

/* A path from the folder on goes before a file of this name deeper down. */
static const char *find(const struct names *n, const char *name)
{
    for (size_t i = 0; i < n->count; i++)
        if (is_meant(n->all[i], name))
            return n->all[i];
    for (size_t i = 0; i < n->count; i++)
        if (is_meant(file_name(n->all[i]), name))
            return n->all[i];
    return NULL;
}

static int refuse(const struct names *n, const char *name, struct err *err)
{
    const char **short_names = mem_alloc((n->count + 1) * sizeof(*short_names));
    const char *near;

    for (size_t i = 0; i < n->count; i++) {
        char *ending = strrchr(n->all[i], '.');

        *ending = '\0';
        short_names[i] = file_name(n->all[i]);
    }
    near = str_nearest(name, short_names, n->count);
    err_set_param(
        err, ERR_INVALID, "prompt",
        "there is no LoRA '%.100s' in the LoRA folder, which has %zu%s%.100s%s", name,
        n->count, near ? "; perhaps '" : "", near ? near : "", near ? "'" : "");
    free(short_names);
    return -1;
}

static void release(struct names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->all[i]);
    free(n->all);
    *n = (struct names){0};
}

int lora_folder_find(char *const *folders, const char *name, char **ret_path,
                     struct err *err)
{
    struct names all = {0};
    int result = -1;

    if (!file_is_confined(name))
        return err_set_param(err, ERR_INVALID, "prompt",
                             "'%.100s' is no name of a LoRA: a file in the LoRA folder "
                             "is meant, not a path to somewhere else",
                             name);
    for (; *folders && result; folders++) {
        struct names here = {0};
        const char *found;

        read_folder(&here, *folders, "", 0);
        if (here.count)
            qsort(here.all, here.count, sizeof(*here.all), by_name);
        found = find(&here, name);
        if (found) {
            *ret_path = file_join(*folders, found);
            result = 0;
        }
        for (size_t i = 0; i < here.count; i++)
            add(&all, mem_strdup(here.all[i]));
        release(&here);
    }
    if (result)
        refuse(&all, name, err);
    release(&all);
    return result;
}
