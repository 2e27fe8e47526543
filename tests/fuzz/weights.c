/* Model files, all formats (the corpus decides which is met more): whatever opens must
 * have readable values, and must be either understood or refused as a model, down to
 * the graphs made from it. As a VAE, every tensor of it gets a name. */
#include "engine/family.h"
#include "engine/files/reader.h"
#include "engine/graph/plan.h"
#include "engine/vae/vae.h"

#include "fuzz.h"

#include <stdlib.h>

static void read_values(const struct weights_file *file)
{
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);
        size_t count = weight_count(w);
        float values[64];

        if (weights_file_find(file, w->name) != w)
            abort();
        if (w->type == WEIGHT_OTHER)
            continue;
        for (size_t first = 0; first < count; first += 64)
            weight_to_f32(w, first, count - first < 64 ? count - first : 64, values);
    }
}

static void plan_and_free(struct graph *g)
{
    struct err err = {0};

    if (graph_check(g, &err)) {
        if (!err.message[0])
            abort();
    } else {
        plan_free(plan_new(g, &(struct plan_options){.act_bytes = 2}));
    }
    graph_free(g);
}

static void read_text(const struct clip *clip, struct build *b)
{
    int ids, states;

    b->graph = graph_new("text");
    ids = graph_input(b->graph, "ids", TENSOR_I32, shape2(1, clip->positions));
    clip_build(clip, b, ids, 0, clip->projection ? &states : NULL);
    plan_and_free(b->graph);
    if (clip->projection) {
        float *state =
            calloc((size_t)(clip->width + clip->summary_width), sizeof(*state));

        if (!state)
            abort();
        clip_summarise(clip, state, state + clip->width);
        free(state);
    }
}

static void read_vae(const struct vae *vae)
{
    struct build b = {.graph = graph_new("decode"), .file = vae->file};

    vae_build_decoder(vae, &b, 1, 3, 2);
    plan_and_free(b.graph);
    if (!vae->has_encoder)
        return;
    b.graph = graph_new("start");
    vae_build_encoder(vae, &b, 1, 2 * vae->scale, 3 * vae->scale);
    plan_and_free(b.graph);
}

static void read_model(const struct weights_file *file)
{
    struct build b = {.file = file};
    const struct family *family;
    enum prediction prediction;
    struct unet *unet;
    struct clip clip;
    struct vae vae;

    if (family_find(&family, file, NULL) ||
        family_prediction(&prediction, family, file, NULL))
        return;
    for (int i = 0; i < family->text_count; i++)
        if (clip_open(&clip, file, &family->texts[i], 0, NULL) == 0)
            read_text(&clip, &b);
    if (vae_open(&vae, file, NULL) == 0)
        read_vae(&vae);
    if (unet_open(&unet, file, family->heads, NULL) == 0) {
        int context, label = -1;

        b.graph = graph_new("context");
        context = graph_input(b.graph, "context", TENSOR_F32,
                              shape3(2, 77, unet_context_width(unet)));
        if (unet_label_width(unet))
            label = graph_input(b.graph, "label", TENSOR_F32,
                                shape2(2, unet_label_width(unet)));
        unet_build_context(unet, &b, context, label);
        plan_and_free(b.graph);
        b.graph = graph_new("step");
        unet_build_step(unet, &b, &(struct unet_size){2, 5, 4, 77});
        plan_and_free(b.graph);
        unet_free(unet);
    }
}

static void read_as_vae(const uint8_t *data, size_t size)
{
    struct weights_file *file;
    struct vae vae;

    if (weights_memory_vae_open(&file, data, size, NULL))
        return;
    for (size_t i = 0; i < weights_file_count(file); i++)
        if (!weights_file_at(file, i)->name[0])
            abort();
    if (vae_open(&vae, file, NULL) == 0)
        read_vae(&vae);
    weights_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weights_file *file;
    struct err err = {0};

    if (weights_memory_open(&file, data, size, &err)) {
        if (!err.message[0] || err.code == ERR_NONE)
            abort();
        return 0;
    }
    read_values(file);
    read_model(file);
    weights_file_close(file);
    read_as_vae(data, size);
    return 0;
}
