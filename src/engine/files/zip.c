/* zip: end record, directory, entries; read backwards, as the format wants it.
 *
 * The end record says where the directory lies, the directory where each entry's own
 * header lies, and behind that header is the data. Archives above 4 GB have a second end
 * record with 64-bit numbers and a locator that leads to it. Source: PKWARE's
 * APPNOTE.TXT, 4.3 and 4.5.3. All numbers are little endian.
 *
 * A library was rejected: what is needed is the place of bytes in a mapped file, and
 * libraries hand out copies. Refused is everything that torch.save never writes and that
 * makes zip dangerous: compressed entries (so nothing can grow), encrypted ones, entries
 * that overlap (the other kind of zip bomb), two of one name, a header that says
 * something else than the directory. Checksums are not compared: that would read
 * gigabytes before the first tensor is used.
 *
 * Nothing is allocated by a count alone: the directory must really hold as many records.
 */
#include "engine/files/zip.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define END_BYTES 22
#define END64_BYTES 56
#define LOCATOR_BYTES 20
#define RECORD_BYTES 46
#define HEADER_BYTES 30
#define MAX_COMMENT 65535
#define MAX_16 0xffff
#define MAX_32 0xffffffff

struct directory {
    uint64_t at, size, count;
};

/* What the directory says about one entry. */
struct record {
    const char *name;
    unsigned name_len, flags, method;
    uint64_t packed, size, at;
};

struct archive {
    const unsigned char *data;
    size_t size;
};

static uint64_t number(const unsigned char *p, size_t bytes)
{
    uint64_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | p[bytes];
    return value;
}

static int has_signature(const unsigned char *p, char a, char b)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

/* ---- the end ---- */

static int find_end(const struct archive *a, size_t *ret_at, struct err *err)
{
    for (size_t back = END_BYTES; back <= a->size && back <= END_BYTES + MAX_COMMENT;
         back++) {
        const unsigned char *p = a->data + (a->size - back);

        if (has_signature(p, 5, 6) && number(p + 20, 2) == back - END_BYTES) {
            *ret_at = a->size - back;
            return 0;
        }
    }
    return err_set(err, ERR_BAD_FILE,
                   "the zip archive has no end (%zu bytes): it is truncated", a->size);
}

static int read_end64(const struct archive *a, const unsigned char *locator,
                      struct directory *d, struct err *err)
{
    uint64_t at = number(locator + 8, 8);
    const unsigned char *p;

    if (at > a->size || a->size - at < END64_BYTES ||
        !has_signature(a->data + at, 6, 6))
        return err_set(err, ERR_BAD_FILE,
                       "the zip archive's 64-bit end is not at byte %" PRIu64, at);
    p = a->data + at;
    d->count = number(p + 32, 8);
    d->size = number(p + 40, 8);
    d->at = number(p + 48, 8);
    return 0;
}

static int read_end(const struct archive *a, struct directory *d, struct err *err)
{
    const unsigned char *p;
    size_t at = 0;

    if (find_end(a, &at, err))
        return -1;
    p = a->data + at;
    d->count = number(p + 10, 2);
    d->size = number(p + 12, 4);
    d->at = number(p + 16, 4);
    if (at >= LOCATOR_BYTES && has_signature(p - LOCATOR_BYTES, 6, 7) &&
        read_end64(a, p - LOCATOR_BYTES, d, err))
        return -1;
    if (d->at > at || d->size > at - d->at)
        return err_set(err, ERR_BAD_FILE,
                       "the zip archive's directory (%" PRIu64 " bytes at %" PRIu64
                       ") does not end before its end record",
                       d->size, d->at);
    return 0;
}

/* ---- the directory ---- */

/* Sizes that need 64 bits stand in an extra field, those that do not are left out. */
static int read_extra(struct record *r, const unsigned char *extra, size_t len,
                      struct err *err)
{
    uint64_t *const wide[] = {&r->size, &r->packed, &r->at};

    while (len >= 4) {
        size_t bytes = (size_t)number(extra + 2, 2);
        const unsigned char *p = extra + 4;

        if (bytes > len - 4)
            break;
        for (size_t i = 0; number(extra, 2) == 1 && i < 3; i++) {
            if (*wide[i] != MAX_32)
                continue;
            if ((size_t)(p - extra - 4) + 8 > bytes)
                break;
            *wide[i] = number(p, 8);
            p += 8;
        }
        extra += 4 + bytes;
        len -= 4 + bytes;
    }
    if (r->size == MAX_32 || r->packed == MAX_32 || r->at == MAX_32)
        return err_set(err, ERR_BAD_FILE,
                       "an entry of the zip archive needs 64-bit sizes and has none");
    return 0;
}

/* One record at `p`, of at most `left` bytes. */
static int read_record(const unsigned char *p, size_t left, struct record *r,
                       size_t *ret_bytes, struct err *err)
{
    size_t extra, comment;

    if (left < RECORD_BYTES || !has_signature(p, 1, 2))
        return err_set(err, ERR_BAD_FILE,
                       "the zip archive's directory is shorter than it claims");
    r->flags = (unsigned)number(p + 8, 2);
    r->method = (unsigned)number(p + 10, 2);
    r->packed = number(p + 20, 4);
    r->size = number(p + 24, 4);
    r->name_len = (unsigned)number(p + 28, 2);
    extra = (size_t)number(p + 30, 2);
    comment = (size_t)number(p + 32, 2);
    r->at = number(p + 42, 4);
    r->name = (const char *)p + RECORD_BYTES;
    *ret_bytes = RECORD_BYTES + r->name_len + extra + comment;
    if (*ret_bytes > left)
        return err_set(err, ERR_BAD_FILE,
                       "the zip archive's directory is shorter than it claims");
    return read_extra(r, p + RECORD_BYTES + r->name_len, extra, err);
}

/* How much of a name a sentence shows. */
static int shown(size_t name_len)
{
    return name_len < 100 ? (int)name_len : 100;
}

/* The entry's own header, and the data behind it, both before `end`. */
static int read_entry(const struct archive *a, const struct record *r, uint64_t end,
                      struct zip_entry *ret_entry, struct err *err)
{
    const unsigned char *p;
    uint64_t header;

    if (r->flags & 1)
        return err_set(err, ERR_BAD_FILE, "entry %.*s is encrypted", shown(r->name_len),
                       r->name);
    if (r->method != 0 || r->packed != r->size)
        return err_set(err, ERR_BAD_FILE,
                       "entry %.*s is compressed (method %u), torch.save stores its "
                       "entries: save the file again",
                       shown(r->name_len), r->name, r->method);
    if (r->at > end || end - r->at < HEADER_BYTES ||
        !has_signature(a->data + r->at, 3, 4))
        return err_set(err, ERR_BAD_FILE, "entry %.*s is not at byte %" PRIu64,
                       shown(r->name_len), r->name, r->at);
    p = a->data + r->at;
    header = HEADER_BYTES + number(p + 26, 2) + number(p + 28, 2);
    if (header > end - r->at || r->size > end - r->at - header)
        return err_set(err, ERR_BAD_FILE,
                       "entry %.*s of %" PRIu64
                       " bytes runs into the directory: the file is truncated",
                       shown(r->name_len), r->name, r->size);
    if (number(p + 26, 2) != r->name_len ||
        memcmp(p + HEADER_BYTES, r->name, r->name_len) != 0)
        return err_set(err, ERR_BAD_FILE,
                       "entry %.*s has another name in its own header",
                       shown(r->name_len), r->name);
    *ret_entry = (struct zip_entry){.name = r->name,
                                    .name_len = r->name_len,
                                    .data = p + header,
                                    .size = (size_t)r->size};
    return 0;
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;

    return compare(x->name, x->name_len, y->name, y->name_len);
}

static int by_place(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;

    if (x->data == y->data)
        return (x->size > y->size) - (x->size < y->size);
    return x->data < y->data ? -1 : 1;
}

/* Data that overlaps. Two headers cannot share a place without that, or a twin: they
 * would have one name. */
static int refuse_overlap(struct zip *z, struct err *err)
{
    const struct zip_entry *last = NULL;

    if (z->count)
        qsort(z->entries, z->count, sizeof(*z->entries), by_place);
    for (size_t i = 0; i < z->count; i++) {
        const struct zip_entry *e = &z->entries[i];

        if (e->size == 0)
            continue;
        if (last && last->data + last->size > e->data)
            return err_set(err, ERR_BAD_FILE, "entries %.*s and %.*s share bytes",
                           shown(last->name_len), last->name, shown(e->name_len),
                           e->name);
        last = e;
    }
    return 0;
}

static int refuse_twins(struct zip *z, struct err *err)
{
    if (z->count)
        qsort(z->entries, z->count, sizeof(*z->entries), by_name);
    for (size_t i = 0; i + 1 < z->count; i++)
        if (by_name(&z->entries[i], &z->entries[i + 1]) == 0)
            return err_set(err, ERR_BAD_FILE, "there are two entries named %.*s",
                           shown(z->entries[i].name_len), z->entries[i].name);
    return 0;
}

static int read_directory(struct zip *z, const struct archive *a,
                          const struct directory *d, struct err *err)
{
    size_t at = (size_t)d->at, end = (size_t)(d->at + d->size), bytes = 0;

    if (d->count > d->size / RECORD_BYTES)
        return err_set(err, ERR_BAD_FILE,
                       "the zip archive claims %" PRIu64
                       " entries in a directory of %" PRIu64 " bytes",
                       d->count, d->size);
    z->entries = mem_try_zalloc((size_t)d->count + 1, sizeof(*z->entries));
    if (!z->entries)
        return err_set(err, ERR_NO_MEMORY, "no memory for the %" PRIu64 " entries",
                       d->count);
    for (; z->count < d->count; z->count++, at += bytes) {
        struct record r = {0};

        if (read_record(a->data + at, end - at, &r, &bytes, err) ||
            read_entry(a, &r, d->at, &z->entries[z->count], err))
            return -1;
    }
    return refuse_overlap(z, err) || refuse_twins(z, err) ? -1 : 0;
}

int zip_read(struct zip *ret_zip, const void *archive, size_t size, struct err *err)
{
    struct archive a = {archive, size};
    struct directory d = {0};
    struct zip z = {0};

    if (read_end(&a, &d, err) || read_directory(&z, &a, &d, err)) {
        zip_release(&z);
        return -1;
    }
    *ret_zip = z;
    return 0;
}

void zip_release(struct zip *zip)
{
    free(zip->entries);
    *zip = (struct zip){0};
}

const struct zip_entry *zip_find(const struct zip *zip, const char *name,
                                 size_t name_len)
{
    struct zip_entry key = {.name = name, .name_len = name_len};

    if (zip->count == 0)
        return NULL;
    return bsearch(&key, zip->entries, zip->count, sizeof(key), by_name);
}
