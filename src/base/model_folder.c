#include "base/model_folder.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <dirent.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_file(const char *path, struct stat *ret)
{
    return stat(path, ret) == 0 && S_ISREG(ret->st_mode);
}

bool model_folder_is(const char *path)
{
    char *list = file_join(path, MODEL_FOLDER_LIST);
    struct stat st;
    bool is = is_file(list, &st);

    free(list);
    return is;
}

char *model_folder_weights(const char *folder, const char *part)
{
    static const char *const endings[] = {
        ".safetensors",    ".safetensors.index.json", ".bin",
        ".bin.index.json", ".fp16.safetensors",       ".safetensors.index.fp16.json",
        ".fp16.bin"};
    /* of diffusers, of transformers, of transformers with torch's format */
    static const char *const names[] = {"diffusion_pytorch_model", "model",
                                        "pytorch_model"};

    for (size_t e = 0; e < sizeof(endings) / sizeof(endings[0]); e++)
        for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
            char *path = mem_printf("%s/%s/%s%s", folder, part, names[n], endings[e]);
            struct stat st;

            if (is_file(path, &st))
                return path;
            free(path);
        }
    return NULL;
}

char *model_folder_network(const char *folder)
{
    char *config = file_join(folder, "config.json");
    char *weights = file_exists(config) ? model_folder_weights(folder, ".") : NULL;

    free(config);
    if (weights && !model_folder_is_index(weights) &&
        str_has_prefix(file_name(weights), "diffusion_pytorch_model."))
        return weights;
    free(weights);
    return NULL;
}

bool model_folder_is_index(const char *path)
{
    return str_has_suffix(path, ".json");
}

static void add_file(const char *path, uint64_t *bytes, int64_t *modified)
{
    struct stat st;

    if (!is_file(path, &st))
        return;
    *bytes += (uint64_t)st.st_size;
    if ((int64_t)st.st_mtime > *modified)
        *modified = (int64_t)st.st_mtime;
}

/* "model-00001-of-00002.safetensors" beside "model.safetensors.index.json" */
static void add_shards(const char *index, uint64_t *bytes, int64_t *modified)
{
    const char *name = file_name(index);
    char *folder = mem_strndup(index, (size_t)(name - index));
    size_t len = strcspn(name, ".");
    DIR *dir = opendir(folder);

    for (struct dirent *d; dir && (d = readdir(dir));) {
        char *path;

        if (strncmp(d->d_name, name, len) != 0 || !strstr(d->d_name, "-of-"))
            continue;
        path = file_join(folder, d->d_name);
        add_file(path, bytes, modified);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
}

void model_folder_size(const char *folder, uint64_t *ret_bytes, int64_t *ret_modified)
{
    static const char *const parts[] = {MODEL_FOLDER_UNET, "vae", "text_encoder",
                                        "text_encoder_2"};

    *ret_bytes = 0;
    *ret_modified = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        char *weights = model_folder_weights(folder, parts[i]);

        if (weights && model_folder_is_index(weights))
            add_shards(weights, ret_bytes, ret_modified);
        else if (weights)
            add_file(weights, ret_bytes, ret_modified);
        free(weights);
    }
}
