/* Pickles as torch.save puts them into its archive, which is whole around them: whatever
 * a pickle says, it is refused with a sentence, or its tensors have values. */
#include "engine/files/reader.h"

#include "fuzz.h"
#include "torch_file.h"

#include <stdlib.h>

#define STORAGE_BYTES 256

static struct buf archive(const uint8_t *pickle, size_t size)
{
    static const unsigned char storage[STORAGE_BYTES];
    struct zip_writer zip = {0};

    zip_writer_add(&zip, "a/data.pkl", pickle, size);
    zip_writer_add(&zip, "a/data/0", storage, sizeof(storage));
    zip_writer_add(&zip, "a/data/1", storage, sizeof(storage) / 2);
    return zip_writer_end(&zip);
}

static void read_values(const struct weights_file *file)
{
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);
        float value;

        if (w->type == WEIGHT_OTHER)
            continue;
        for (size_t k = 0; k < weight_count(w); k++)
            weight_to_f32(w, k, 1, &value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf bytes = archive(data, size);
    struct weights_file *file;
    struct err err = {0};

    if (weights_memory_open(&file, bytes.data, bytes.len, &err) == 0) {
        read_values(file);
        weights_file_close(file);
    } else if (!err.message[0] || err.code == ERR_NONE) {
        abort();
    }
    buf_release(&bytes);
    return 0;
}
