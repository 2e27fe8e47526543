/* Runs a fuzz target without a fuzzer: each file of the given folders as it is, then mutations of them from a
 * fixed seed, so that a build without clang still tries a few thousand odd inputs, the same ones each time.
 *
 * usage: replay_<name> [-runs=N] FOLDER... */
#include "fuzz.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>

enum { SEED_LIMIT = 500, SEED_BYTES = 1024 * 1024 };

static struct buf seeds[SEED_LIMIT];
static size_t seed_count;
static uint64_t state = 0x9e3779b97f4a7c15u;

static uint32_t random_below(size_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return n ? (uint32_t)((state >> 20) % n) : 0;
}

static int load(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    struct err err;
    int r = 0;

    if (!dir) {
        fprintf(stderr, "cannot open %s\n", folder);
        return -1;
    }
    while (!r && (entry = readdir(dir)) && seed_count < SEED_LIMIT) {
        char *path = file_join(folder, entry->d_name);

        if (entry->d_name[0] != '.') {
            r = file_read(path, SEED_BYTES, &seeds[seed_count++], &err);
            if (r)
                fprintf(stderr, "%s\n", err.message);
        }
        free(path);
    }
    closedir(dir);
    return r;
}

static void mutate(struct buf *b)
{
    const struct buf *other = &seeds[random_below(seed_count)];
    size_t at = random_below(b->len + 1), n = random_below(b->len - at + 1);

    switch (random_below(6)) {
    case 0: /* a bit */
        if (at < b->len)
            b->data[at] = (char)(b->data[at] ^ (1 << random_below(8)));
        break;
    case 1: /* a byte */
        if (at < b->len)
            b->data[at] = "\0\r\n :;,0f-\xff\x7f%/"[random_below(15)];
        break;
    case 2: /* cut something out */
        n = n > 32 ? n % 32 : n;
        memmove(b->data + at, b->data + at + n, b->len - at - n);
        b->len -= n;
        break;
    case 3: /* break off */
        b->len = at;
        break;
    case 4: /* repeat something */
        buf_reserve(b, n);
        buf_append(b, b->data + at, n);
        break;
    default: /* go on with another seed */
        b->len = at;
        n = random_below(other->len + 1);
        buf_append(b, other->len ? other->data + n : "", other->len - n);
    }
}

/* A copy of exactly that size, so that a sanitizer sees a read behind its end. */
static void run_one(const struct buf *b)
{
    uint8_t *copy = mem_alloc(b->len ? b->len : 1);

    if (b->len)
        memcpy(copy, b->data, b->len);
    LLVMFuzzerTestOneInput(copy, b->len);
    free(copy);
}

int main(int argc, char **argv)
{
    long runs = 5000;
    struct buf b = {0};

    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-runs=", 6))
            runs = strtol(argv[i] + 6, NULL, 10);
        else if (load(argv[i]))
            return 1;
    }
    if (!seed_count) {
        fprintf(stderr, "no seeds\n");
        return 1;
    }
    for (size_t i = 0; i < seed_count; i++)
        run_one(&seeds[i]);
    for (long i = 0; i < runs; i++) {
        const struct buf *from = &seeds[random_below(seed_count)];

        buf_clear(&b);
        buf_append(&b, from->len ? from->data : "", from->len);
        for (uint32_t n = 1 + random_below(6); n && b.len < SEED_BYTES; n--)
            mutate(&b);
        run_one(&b);
    }
    printf("%zu seeds, %ld mutations\n", seed_count, runs);
    buf_release(&b);
    for (size_t i = 0; i < seed_count; i++)
        buf_release(&seeds[i]);
    return 0;
}
