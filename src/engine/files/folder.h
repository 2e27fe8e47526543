/* folder: a model kept as diffusers keeps it becomes one struct weights_file. Private to
 * files/; weights_file_open() is the way in. */
#ifndef MYSTI_ENGINE_FILES_FOLDER_H
#define MYSTI_ENGINE_FILES_FOLDER_H

#include "base/err.h"

#include <stddef.h>

struct weights_file;

/* file->path is the folder. Fills the file with the tensors of its parts, under the names
 * of a checkpoint; the parts' files are file->parts. */
int folder_read(struct weights_file *file, struct err *err) MUST_CHECK;

/* ---- the index of weights that are cut into several files ---- */

struct shard_index {
    struct shard_entry {
        char *tensor, *file; /* file: a name without a slash */
    } * entries;             /* sorted by file, then by tensor */
    size_t count;
};

/* text [size]: the JSON. */
int shard_index_read(struct shard_index *ret, const char *text, size_t size,
                     struct err *err) MUST_CHECK;
void shard_index_release(struct shard_index *index);

#endif
