/* A PNG is a signature and a row of chunks: length, type, data, CRC. To find a text
 * only the heads need to be read: the walk jumps from chunk to chunk, so that listing a
 * thousand pictures touches a few pages of each and not a gigabyte. The CRC is not
 * checked: a flipped bit in a caption harms nobody, and a check would mean reading
 * every pixel. Compressed texts (zTXt, packed iTXt) are passed over: none of the
 * programs whose pictures are read here writes them by default, and unpacking foreign
 * bytes is how a kilobyte becomes a gigabyte. libpng would do all this too, but the
 * store would then link a picture decoder to read a caption.
 *
 * One walk over two sources (memory, file). Invariant: nothing is used that the source
 * did not deliver in full, and `at` only grows, so that the walk ends whatever the
 * lengths say. */
#include "base/png_text.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHUNK_HEAD = 8,
    CHUNK_CRC = 4,
    KEY_MAX = 79,
    TEXT_MAX = 1 << 20,
};

struct source {
    const unsigned char *data; /* NULL: read from fd */
    int fd;
    uint64_t len;
};

static bool source_read(const struct source *s, uint64_t at, void *dst, size_t n)
{
    if (at > s->len || n > s->len - at)
        return false;
    if (s->data) {
        memcpy(dst, s->data + at, n);
        return true;
    }
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(s->fd, (char *)dst + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void append_latin1(struct buf *b, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        char two[2] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};

        if (c < 0x80)
            buf_append(b, &s[i], 1);
        else
            buf_append(b, two, 2);
    }
}

/* iTXt after the keyword: compressed, method, language\0, translated keyword\0, UTF-8
 * text. The text's start, or NULL when it is packed or the chunk is broken. */
static const char *international_text(const char *p, const char *end)
{
    if (end - p < 2 || p[0] != 0)
        return NULL;
    p += 2;
    for (int strings = 0; strings < 2; strings++) {
        const char *nul = memchr(p, 0, (size_t)(end - p));
        if (!nul)
            return NULL;
        p = nul + 1;
    }
    return p;
}

/* 1 when this chunk is the text that was asked for */
static int chunk_text(const char *type, const char *data, size_t len, const char *key,
                      struct buf *ret_text, struct err *err)
{
    const char *end = data + len;
    const char *nul = memchr(data, 0, len < KEY_MAX + 1 ? len : KEY_MAX + 1);

    if (!nul || strcmp(data, key) != 0)
        return 0;
    if (memcmp(type, "tEXt", 4) == 0) {
        append_latin1(ret_text, nul + 1, (size_t)(end - nul - 1));
        return 1;
    }
    const char *text = international_text(nul + 1, end);
    if (!text)
        return 0;
    if (!str_is_utf8(text, (size_t)(end - text)))
        return err_set(err, ERR_BAD_FILE, "the picture's text '%s' is not valid UTF-8",
                       key);
    buf_append(ret_text, text, (size_t)(end - text));
    return 1;
}

static int walk(const struct source *s, const char *key, struct buf *ret_text,
                struct err *err)
{
    static const unsigned char signature[8] = {0x89, 'P',  'N',  'G',
                                               '\r', '\n', 0x1a, '\n'};
    unsigned char head[CHUNK_HEAD];

    if (!source_read(s, 0, head, sizeof(head)) ||
        memcmp(head, signature, sizeof(signature)) != 0)
        return err_set(err, ERR_BAD_FILE, "not a PNG: its first 8 bytes are others");
    for (uint64_t at = sizeof(signature);;) {
        if (!source_read(s, at, head, sizeof(head)))
            return err_set(err, ERR_BAD_FILE,
                           "the PNG is cut short: it ends at byte %" PRIu64
                           " without an IEND chunk",
                           s->len);
        uint32_t len = be32(head);
        const char *type = (const char *)head + 4;

        if (memcmp(type, "IEND", 4) == 0)
            return 0;
        bool is_text = memcmp(type, "tEXt", 4) == 0 || memcmp(type, "iTXt", 4) == 0;
        if (is_text && len > 0 && len <= TEXT_MAX) {
            struct buf data = {0};
            int found = 0;

            if (source_read(s, at + CHUNK_HEAD, buf_reserve(&data, len), len)) {
                data.len = len;
                data.data[len] = '\0';
                found = chunk_text(type, data.data, len, key, ret_text, err);
            }
            buf_release(&data);
            if (found)
                return found;
        }
        at += (uint64_t)CHUNK_HEAD + len + CHUNK_CRC;
    }
}

int png_text_read(const void *png, size_t len, const char *key, struct buf *ret_text,
                  struct err *err)
{
    struct source s = {.data = png, .fd = -1, .len = len};

    return walk(&s, key, ret_text, err);
}

int png_text_read_file(const char *path, const char *key, struct buf *ret_text,
                       struct err *err)
{
    struct source s = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    struct stat st;
    int rc;

    if (s.fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_STORAGE,
                       "cannot open '%s': %s", path, strerror(errno));
    if (fstat(s.fd, &st) || !S_ISREG(st.st_mode)) {
        rc = err_set(err, ERR_BAD_FILE, "'%s' is not a file", path);
    } else {
        s.len = (uint64_t)st.st_size;
        rc = walk(&s, key, ret_text, err);
        if (rc < 0)
            err_wrap(err, "%s", path);
    }
    close(s.fd);
    return rc;
}
