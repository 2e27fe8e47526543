#include "engine/inspect/taesd.h"

#include "engine/vae/vae.h"

static bool has(const struct weights_file *file, const char *name)
{
    return weights_file_find(file, name) != NULL;
}

static const struct weight *first_of_decoder(const struct weights_file *file)
{
    static const char *const names[] = {"decoder.layers.0.weight",
                                        "taesd_decoder.1.weight", "1.weight"};
    const struct weight *w = NULL;

    for (int i = 0; i < 3 && !w; i++)
        w = weights_file_find(file, names[i]);
    return w;
}

/* What files/vae_names.c knows, by a block of each half. */
void taesd_look(struct taesd_look *ret, const struct weights_file *file)
{
    const struct weight *first = first_of_decoder(file);
    bool is_bare_encoder = has(file, "0.weight") && has(file, "1.conv.0.weight");

    *ret = (struct taesd_look){
        .has_decoder = has(file, "decoder.layers.2.conv.0.weight") ||
                       has(file, "taesd_decoder.3.conv.0.weight") ||
                       (has(file, "1.weight") && has(file, "3.conv.0.weight")),
        .has_encoder = has(file, "encoder.layers.1.conv.0.weight") ||
                       has(file, "taesd_encoder.1.conv.0.weight") || is_bare_encoder};
    if (ret->has_decoder && first && first->rank == 4)
        ret->channels = first->dim[1];
}

int taesd_check(const char *path, struct err *err)
{
    struct build b = {0};
    struct weights_file *file;
    struct vae vae;
    int result;

    if (weights_vae_open(&file, path, err))
        return -1;
    result = vae_open(&vae, file, err);
    if (!result) {
        b = (struct build){graph_new("decode"), file, NULL};
        vae_build_decoder(&vae, &b, 1, 8, 8);
        result = graph_check(b.graph, err);
        graph_free(b.graph);
    }
    if (!result && vae.has_encoder) {
        b = (struct build){graph_new("start"), file, NULL};
        vae_build_encoder(&vae, &b, 1, 8 * vae.scale, 8 * vae.scale);
        result = graph_check(b.graph, err);
        graph_free(b.graph);
    }
    weights_file_close(file);
    return result;
}
