/* reader: what the formats share while they fill a struct weights_file. Private to
 * files/. */
#ifndef MYSTI_ENGINE_FILES_READER_H
#define MYSTI_ENGINE_FILES_READER_H

#include "engine/files/weights.h"

struct weights_meta {
    char *key;
    char *value;
};

struct weights_file {
    char *path;
    const char *format;
    const unsigned char *map; /* the whole file */
    size_t size;
    bool is_mapped;              /* else borrowed memory (weights_memory_open) */
    bool may_share;              /* two tensors may be the same bytes */
    struct weights_file **parts; /* of a folder: the files, which own the data */
    size_t part_count;
    void **copies; /* data of weights that do not lie in the map as they are */
    size_t copy_count, copy_cap;
    struct weight *weights; /* sorted by name once opened */
    size_t count, cap;
    struct weights_meta *meta;
    size_t meta_count, meta_cap;
};

/* A tensor as a format describes it; `at` and `bytes` are checked against the file
 * here. */
struct tensor_entry {
    const char *name;
    size_t name_len;
    enum weight_type type;
    int ggml_type;     /* for WEIGHT_GGML */
    const char *other; /* the format's name of a WEIGHT_OTHER; NULL: it has none */
    int rank;
    int64_t dim[4];
    uint64_t at; /* bytes from the beginning of the file */
    void *copy;  /* the data instead, all of it; weights_file_add() takes it over */
};

#define MAX_TENSORS 262144      /* SDXL has 2,600 */
#define MAX_PAIRS_OF_FILE 65536 /* of metadata */

/* Adds a tensor: not too many, name sane, no overflow, data within the file. WEIGHT_OTHER gets no
 * data. */
int weights_file_add(struct weights_file *file, const struct tensor_entry *entry,
                     struct err *err) MUST_CHECK;
/* Adds a tensor that was added to one of file->parts, under another name. */
int weights_file_adopt(struct weights_file *file, const struct weight *weight,
                       const char *name, struct err *err) MUST_CHECK;
void weights_file_add_meta(struct weights_file *file, const char *key, size_t key_len,
                           const char *value, size_t value_len);
/* Bytes of a tensor of this type and shape; -1 on overflow or when rows do not divide
 * into blocks. */
int weight_size(const struct tensor_entry *entry, uint64_t *ret_bytes);

int safetensors_read(struct weights_file *file, struct err *err) MUST_CHECK;
int gguf_read(struct weights_file *file, struct err *err) MUST_CHECK;
int torch_read(struct weights_file *file, struct err *err) MUST_CHECK;

/* Opens another file and makes it the last of file->parts. */
int weights_file_open_part(struct weights_file *file, const char *path,
                           struct err *err) MUST_CHECK;

/* What a file with one half of a TAESD alone is. */
enum vae_half { VAE_HALF_NONE, VAE_HALF_DECODER, VAE_HALF_ENCODER };

/* After which the tensors of a VAE alone have a checkpoint's names, in no order any more. */
enum vae_half vae_names_complete(struct weights_file *file);
/* Of file->path, a file or a folder; errors name the path. */
int vae_file_read(struct weights_file *file, struct err *err) MUST_CHECK;

/* weights_file_open() of a file: a folder is refused. */
int weights_single_open(struct weights_file **ret_file, const char *path,
                        struct err *err) MUST_CHECK;
/* For tests and fuzzing: as weights_file_open, from memory that outlives the file. */
int weights_memory_open(struct weights_file **ret_file, const void *data, size_t size,
                        struct err *err) MUST_CHECK;
/* The same as weights_vae_open. */
int weights_memory_vae_open(struct weights_file **ret_file, const void *data,
                            size_t size, struct err *err) MUST_CHECK;

#endif
