/* torch_file: writes the parts of a file as torch.save does: a zip archive of stored
 * entries, and the opcodes of a pickle. */
#ifndef MYSTI_TESTS_TORCH_FILE_H
#define MYSTI_TESTS_TORCH_FILE_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

/* ---- the archive ---- */

struct zip_writer {
    struct buf file, directory;
    unsigned count;
    int is_wide; /* sizes and places in 64 bits, as above 4 GB */
};

/* The data begins at a multiple of 64, as torch has it. */
void zip_writer_add(struct zip_writer *zip, const char *name, const void *data,
                    size_t len);
/* The whole archive, buf_release() it; the writer is empty again. */
struct buf zip_writer_end(struct zip_writer *zip);

/* ---- the pickle ---- */

#define PICKLE_BEGIN "\x80\x02"
#define PICKLE_DICT_BEGIN "}(" /* then names and values, then "u" */

void put_pickle_int(struct buf *pickle, uint64_t value);
void put_pickle_text(struct buf *pickle, const char *text);

struct torch_tensor {
    const char *storage; /* "FloatStorage" */
    const char *key;     /* its entry is "archive/data/KEY" */
    uint64_t numbers, offset;
    int rank;
    const unsigned long *size;
    const unsigned long *stride; /* NULL: one behind the other */
};

void put_torch_tensor(struct buf *pickle, const struct torch_tensor *t);

#endif
