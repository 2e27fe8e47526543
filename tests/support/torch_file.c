#include "torch_file.h"

#include <string.h>

#define ALIGN 64

static void put(struct buf *b, uint64_t value, size_t bytes)
{
    buf_append(b, &value, bytes); /* little endian, as every machine here */
}

/* ---- the archive ---- */

/* What an entry's header and its record in the directory have in common. The flags say
 * that the sizes stand behind the data, which torch claims too, and that names are UTF-8.
 */
static void put_facts(struct buf *b, size_t len, size_t name_len, size_t extra_len)
{
    put(b, 0x808, 2);
    put(b, 0, 2); /* stored */
    put(b, 0, 4); /* time and date */
    put(b, 0, 4); /* checksum */
    put(b, len, 4);
    put(b, len, 4);
    put(b, name_len, 2);
    put(b, extra_len, 2);
}

void zip_writer_add(struct zip_writer *zip, const char *name, const void *data,
                    size_t len)
{
    size_t at = zip->file.len, name_len = strlen(name);
    size_t padding = ALIGN - (at + 30 + name_len + 4) % ALIGN;

    buf_append(&zip->file, "PK\3\4", 4);
    put(&zip->file, 45, 2);
    put_facts(&zip->file, len, name_len, padding + 4);
    buf_append_str(&zip->file, name);
    buf_append(&zip->file, "FB", 2); /* torch's mark of padding */
    put(&zip->file, padding, 2);
    while (padding-- > 0)
        put(&zip->file, 'Z', 1);
    buf_append(&zip->file, data, len);

    buf_append(&zip->directory, "PK\1\2", 4);
    put(&zip->directory, 45, 2);
    put(&zip->directory, 45, 2);
    put_facts(&zip->directory, zip->is_wide ? 0xffffffff : len, name_len,
              zip->is_wide ? 28 : 0);
    put(&zip->directory, 0, 2); /* comment */
    put(&zip->directory, 0, 2); /* disk */
    put(&zip->directory, 0, 2); /* attributes */
    put(&zip->directory, 0, 4);
    put(&zip->directory, zip->is_wide ? 0xffffffff : at, 4);
    buf_append_str(&zip->directory, name);
    if (zip->is_wide) {
        put(&zip->directory, 1, 2);
        put(&zip->directory, 24, 2);
        put(&zip->directory, len, 8);
        put(&zip->directory, len, 8);
        put(&zip->directory, at, 8);
    }
    zip->count++;
}

struct buf zip_writer_end(struct zip_writer *zip)
{
    size_t at = zip->file.len, end = at + zip->directory.len;
    struct buf all;

    if (zip->directory.len)
        buf_append(&zip->file, zip->directory.data, zip->directory.len);
    if (zip->is_wide) {
        buf_append(&zip->file, "PK\6\6", 4);
        put(&zip->file, 44, 8);
        put(&zip->file, 45, 4); /* made by, needed */
        put(&zip->file, 0, 8);  /* disks */
        put(&zip->file, zip->count, 8);
        put(&zip->file, zip->count, 8);
        put(&zip->file, end - at, 8);
        put(&zip->file, at, 8);
        buf_append(&zip->file, "PK\6\7", 4);
        put(&zip->file, 0, 4);
        put(&zip->file, end, 8);
        put(&zip->file, 1, 4);
    }
    buf_append(&zip->file, "PK\5\6", 4);
    put(&zip->file, 0, 4);
    put(&zip->file, zip->is_wide ? 0xffff : zip->count, 2);
    put(&zip->file, zip->is_wide ? 0xffff : zip->count, 2);
    put(&zip->file, zip->is_wide ? 0xffffffff : end - at, 4);
    put(&zip->file, zip->is_wide ? 0xffffffff : at, 4);
    put(&zip->file, 0, 2);
    all = zip->file;
    buf_release(&zip->directory);
    *zip = (struct zip_writer){0};
    return all;
}

/* ---- the pickle ---- */

void put_pickle_int(struct buf *pickle, uint64_t value)
{
    if (value < 1 << 8) {
        put(pickle, 'K', 1);
        put(pickle, value, 1);
    } else if (value < 1 << 16) {
        put(pickle, 'M', 1);
        put(pickle, value, 2);
    } else {
        put(pickle, 0x8a, 1);
        put(pickle, 8, 1);
        put(pickle, value, 8);
    }
}

void put_pickle_text(struct buf *pickle, const char *text)
{
    put(pickle, 'X', 1);
    put(pickle, strlen(text), 4);
    buf_append_str(pickle, text);
}

void put_torch_tensor(struct buf *pickle, const struct torch_tensor *t)
{
    unsigned long step = 1, stride[8];

    buf_append_str(pickle, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_pickle_text(pickle, "storage");
    buf_printf(pickle, "ctorch\n%s\n", t->storage);
    put_pickle_text(pickle, t->key);
    put_pickle_text(pickle, "cpu");
    put_pickle_int(pickle, t->numbers);
    buf_append_str(pickle, "tQ");
    put_pickle_int(pickle, t->offset);
    buf_append_str(pickle, "(");
    for (int i = 0; i < t->rank; i++)
        put_pickle_int(pickle, t->size[i]);
    buf_append_str(pickle, "t(");
    for (int i = t->rank; i-- > 0;) {
        stride[i] = step;
        step *= t->size[i];
    }
    for (int i = 0; i < t->rank; i++)
        put_pickle_int(pickle, t->stride ? t->stride[i] : stride[i]);
    buf_append_str(pickle, "t\x89"
                           "ccollections\nOrderedDict\n)RtR");
}
