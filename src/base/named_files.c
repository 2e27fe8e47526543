/* The folders are read again whenever somebody asks: a few milliseconds for thousands of files, and a file that was
 * just put there is found. */
#include "base/named_files.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "base/str.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 6
#define FILES_MAX 20000

/* The length of a model file's name without its ending; 0: it is none. */
static size_t stem_length(const char *name)
{
    static const char *const endings[] = {".safetensors", ".gguf", ".ckpt",
                                          ".pt",          ".pth",  ".bin"};

    for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++)
        if (str_has_suffix(name, endings[i]))
            return strlen(name) - strlen(endings[i]);
    return 0;
}

/* ---- listing ---- */

static bool is_there(const struct named_list *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->all[i].name, name) == 0)
            return true;
    return false;
}

static void add(struct named_list *l, const char *below, size_t length,
                const char *path, const struct stat *st)
{
    char *name = mem_strndup(below, length);

    if (!*name || l->count == FILES_MAX || is_there(l, name)) {
        free(name);
        return;
    }
    if (l->count % 64 == 0)
        l->all = mem_realloc(l->all, (l->count + 64) * sizeof(*l->all));
    l->all[l->count++] = (struct named_file){.name = name,
                                             .path = mem_strdup(path),
                                             .bytes = (uint64_t)st->st_size,
                                             .modified = (int64_t)st->st_mtime};
}

/* A network alone as diffusers writes it, a VAE for instance, is a folder, and has the folder's name. */
static bool add_network(struct named_list *l, const char *below, const char *path)
{
    char *weights = model_folder_network(path);
    struct stat st;
    bool is_one = weights && stat(weights, &st) == 0;

    if (is_one)
        add(l, below, strlen(below), path, &st);
    free(weights);
    return is_one;
}

static void read_folder(struct named_list *l, const char *folder, const char *below,
                        int depth)
{
    char *here = *below ? file_join(folder, below) : mem_strdup(folder);
    DIR *dir = depth < DEPTH_MAX ? opendir(here) : NULL;

    for (struct dirent *d; dir && (d = readdir(dir));) {
        char *name, *path;
        struct stat st = {0}; /* of a link to nothing */

        if (d->d_name[0] == '.' || !str_is_utf8(d->d_name, strlen(d->d_name)))
            continue;
        name = *below ? file_join(below, d->d_name) : mem_strdup(d->d_name);
        path = file_join(folder, name);
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            if (!add_network(l, name, path))
                read_folder(l, folder, name, depth + 1);
        } else if (S_ISREG(st.st_mode) && stem_length(d->d_name)) {
            add(l, name, stem_length(name), path, &st);
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
    const struct named_file *x = a, *y = b;

    return strcmp(x->name, y->name);
}

void named_list_read(struct named_list *ret_list, char *const *folders)
{
    *ret_list = (struct named_list){0};
    for (; *folders; folders++) {
        size_t first = ret_list->count;

        read_folder(ret_list, *folders, "", 0);
        if (ret_list->count > first)
            qsort(ret_list->all + first, ret_list->count - first,
                  sizeof(*ret_list->all), by_name);
    }
}

void named_list_release(struct named_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->all[i].name);
        free(list->all[i].path);
    }
    free(list->all);
    *list = (struct named_list){0};
}

/* ---- finding ---- */

/* A path from the folder on goes before a file of this name deeper down. */
static const struct named_file *find(const struct named_list *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->all[i].name, name) == 0)
            return &l->all[i];
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(file_name(l->all[i].name), name) == 0)
            return &l->all[i];
    return NULL;
}

static int refuse(const struct named_search *search, const struct named_list *l,
                  const char *name, struct err *err)
{
    const char **names = mem_alloc((l->count + 1) * sizeof(*names));
    const char *near;

    for (size_t i = 0; i < l->count; i++)
        names[i] = file_name(l->all[i].name);
    near = str_nearest(name, names, l->count);
    err_set_param(err, ERR_INVALID, search->param,
                  "there is no %s '%.100s' in the %s folder, which has %zu%s%.100s%s",
                  search->what, name, search->what, l->count, near ? "; perhaps '" : "",
                  near ? near : "", near ? "'" : "");
    free(names);
    return -1;
}

int named_file_find(const struct named_search *search, const char *name,
                    char **ret_path, struct err *err)
{
    size_t length = stem_length(name);
    char *stem = length ? mem_strndup(name, length) : mem_strdup(name);
    const struct named_file *found;
    struct named_list list = {0};
    int result = 0;

    if (!file_is_confined(name)) {
        free(stem);
        return err_set_param(
            err, ERR_INVALID, search->param,
            "'%.100s' is no name of a file in the %s folder: one there "
            "is meant, not a path to somewhere else",
            name, search->what);
    }
    named_list_read(&list, search->folders);
    found = find(&list, stem);
    if (found)
        *ret_path = mem_strdup(found->path);
    else
        result = refuse(search, &list, name, err);
    named_list_release(&list);
    free(stem);
    return result;
}
