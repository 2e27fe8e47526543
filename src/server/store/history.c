/* Newest first means by the time a picture was made: the microseconds in the names that this server gives, the
 * file's own time for any other PNG that a user has put into the folder. (By name alone, "upscale-..." would
 * stand before every "img-...", whatever its age.)
 *
 * Only the pictures of the page that was asked for are opened, and of those only the text. Files that are no
 * regular files, or no PNG, are passed over: what can be listed can be fetched. Names that start with a dot are
 * not served, so they are not listed; the temporary names of half-written pictures do not end in .png.
 */
#include "server/store/history.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/png_text.h"
#include "base/str.h"
#include "server/store/parameters.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX ((size_t)32 * 1024) /* of one picture; a longer one is not listed */

struct entry {
    char *name;
    int64_t made_us;
};

struct entries {
    struct entry *list;
    size_t count;
    size_t room;
};

static int newest_first(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->made_us != y->made_us)
        return x->made_us < y->made_us ? 1 : -1;
    return strcmp(y->name, x->name);
}

/* "img-1763669000123456-42.png" was made at 1763669000.123456 */
static bool time_from_name(const char *name, int64_t *ret_us)
{
    int end = 0;

    return sscanf(name, "img-%16" SCNd64 "-%*20[0-9].png%n", ret_us, &end) == 1 &&
           end > 0 && !name[end];
}

static void add_entry(struct entries *e, int folder, const char *name)
{
    struct stat st;
    int64_t us;

    if (name[0] == '.' || !str_has_suffix(name, ".png") ||
        !str_is_utf8(name, strlen(name)))
        return;
    if (!time_from_name(name, &us)) {
        if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            return;
        us = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
    }
    if (e->count == e->room) {
        e->room = e->room ? e->room * 2 : 256;
        e->list = mem_realloc(e->list, e->room * sizeof(*e->list));
    }
    e->list[e->count++] = (struct entry){mem_strdup(name), us};
}

/* "a b.png" -> "/outputs/a%20b.png" */
static json_t *url_of(const char *name)
{
    struct buf url = {0};

    buf_append_str(&url, "/outputs/");
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        bool plain = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
                     (*p >= 'A' && *p <= 'Z') || strchr("-_.~", *p);

        if (plain)
            buf_append(&url, p, 1);
        else
            buf_printf(&url, "%%%02X", *p);
    }
    json_t *text = json_string(buf_str(&url));

    buf_release(&url);
    return text;
}

/* NULL: it is no regular file, or gone meanwhile. */
static json_t *describe(const char *folder, int folder_fd, const struct entry *e)
{
    struct buf text = {0};
    struct stat st;

    if (fstatat(folder_fd, e->name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return NULL;
    char *path = file_join(folder, e->name);
    bool found = png_text_read_file(path, "parameters", &text, NULL) == 1 &&
                 text.len <= TEXT_MAX && strlen(buf_str(&text)) == text.len;
    json_t *picture = json_pack(
        "{s:s, s:o, s:I, s:I, s:o}", "name", e->name, "url", url_of(e->name), "created",
        (json_int_t)(e->made_us / 1000000), "size_bytes", (json_int_t)st.st_size,
        "params", found ? parameters_parse(buf_str(&text)) : json_object());

    free(path);
    buf_release(&text);
    return picture;
}

static int find_start(const struct entries *e, const char *before, size_t *ret_start,
                      struct err *err)
{
    for (size_t i = 0; before && i < e->count; i++) {
        if (!strcmp(e->list[i].name, before)) {
            *ret_start = i + 1;
            return 0;
        }
    }
    if (before)
        return err_set_param(
            err, ERR_INVALID, "before",
            "before names '%.200s', which is no picture of the history", before);
    *ret_start = 0;
    return 0;
}

json_t *history_read(const char *folder, size_t limit, const char *before,
                     struct err *err)
{
    struct entries entries = {0};
    json_t *pictures = NULL;
    DIR *dir = opendir(folder);
    size_t start = 0;

    if (!dir && errno != ENOENT) {
        err_set(err, ERR_STORAGE, "the folder of the pictures, %s, cannot be read: %s",
                folder, strerror(errno));
        return NULL;
    }
    for (struct dirent *d; dir && (d = readdir(dir));)
        add_entry(&entries, dirfd(dir), d->d_name);
    if (entries.count)
        qsort(entries.list, entries.count, sizeof(*entries.list), newest_first);
    if (find_start(&entries, before, &start, err))
        goto out;
    pictures = json_array();
    for (size_t i = start; i < entries.count && json_array_size(pictures) < limit;
         i++) {
        json_t *picture = describe(folder, dirfd(dir), &entries.list[i]);

        if (picture)
            json_array_append_new(pictures, picture);
    }
out:
    for (size_t i = 0; i < entries.count; i++)
        free(entries.list[i].name);
    free(entries.list);
    if (dir)
        closedir(dir);
    return pictures;
}
