/* checkpoint: is this file a model we can draw with, and what is there to know about
 * it?
 *
 * The sizes come from the tensors (text/clip.c, unet/unet.c, vae/vae.c read their own),
 * and so does the family (family.c); what tensors cannot say comes from the metadata,
 * with the family's values when it is silent: the number of heads, eps or v, and the
 * size, steps, guidance scale, sampler and schedule that suit the model.
 *
 * Opening builds all graphs once, at the default size, and throws them away. That
 * is the check: every missing tensor and every misfit is a sentence of the graph
 * builder, and every tensor of the three networks that no graph asked for makes the
 * file refused, because it means that the model does something we would silently leave
 * out (an adapter merged into the file). Tensors outside of them (EMA copies, schedule
 * tables) are let be, and so are the last layers of a text encoder of which the family
 * reads an earlier one. */
#include "engine/checkpoint.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/text/tokenizer.h"

#include <math.h>
#include <string.h>

/* ---- graphs ---- */

/* of pictures */
static struct graph *picture_graph(const char *name, const struct picture_size *size)
{
    struct graph *g = graph_new(name);

    graph_wrap(g, size->seamless & ENGINE_SEAMLESS_Y,
               size->seamless & ENGINE_SEAMLESS_X);
    return g;
}

static struct graph *encode_graph(const struct checkpoint *c,
                                  const struct picture_size *size, bool *used)
{
    struct graph *g = graph_new("encode");
    struct build b = {g, c->file, used};
    struct shape shape = shape2((int64_t)size->batch * size->chunks, TOKENIZER_CONTEXT);
    int ids[FAMILY_TEXTS_MAX], hidden = -1, states = -1;

    for (int i = 0; i < c->family->text_count; i++)
        ids[i] = graph_input(g, "ids", TENSOR_I32, shape);
    for (int i = 0; size->vectors && i < c->family->text_count; i++)
        graph_own_rows(g, ids[i],
                       graph_input(g, "rows", TENSOR_F32,
                                   shape2(size->vectors, c->clips[i].width)));
    for (int i = 0; i < c->family->text_count; i++) {
        int one = clip_build(&c->clips[i], &b, ids[i], size->skipped,
                             c->summary == &c->clips[i] ? &states : NULL);

        hidden = i ? graph_concat(g, hidden, one) : one;
    }
    graph_output(g, "hidden", TENSOR_F32, hidden);
    if (c->summary)
        graph_output(g, "states", TENSOR_F32, states);
    return g;
}

static struct graph *context_graph(const struct checkpoint *c,
                                   const struct picture_size *size, bool *used)
{
    struct graph *g = graph_new("context");
    struct build b = {g, c->file, used};
    int hidden = graph_input(
        g, "hidden", TENSOR_F32,
        shape3(size->batch, size->chunks * TOKENIZER_CONTEXT, c->text_width));

    int label = c->summary ? graph_input(g, "label", TENSOR_F32,
                                         shape2(size->batch, unet_label_width(c->unet)))
                           : -1;

    unet_build_context(c->unet, &b, hidden, label);
    return g;
}

static struct graph *step_graph(const struct checkpoint *c,
                                const struct picture_size *size, bool *used)
{
    struct graph *g = picture_graph("step", size);
    struct build b = {g, c->file, used};
    struct unet_size unet_size = {.batch = size->apart ? 1 : size->batch,
                                  .high = size->height / c->vae.scale,
                                  .wide = size->width / c->vae.scale,
                                  .tokens = size->chunks * TOKENIZER_CONTEXT};

    unet_build_step(c->unet, &b, &unet_size);
    return g;
}

struct picture_size checkpoint_tile_size(const struct checkpoint *c,
                                         const struct picture_size *size)
{
    struct picture_size tile = *size;
    int side = size->tile * c->vae.scale;

    if (side && tile.width > side)
        tile.width = side;
    if (side && tile.height > side)
        tile.height = side;
    return tile;
}

static struct graph *decode_graph(const struct checkpoint *c,
                                  const struct picture_size *whole, bool *used)
{
    struct picture_size tile = checkpoint_tile_size(c, whole), *size = &tile;
    struct graph *g = picture_graph("decode", size);
    struct build b = {g, c->vae.file, used};

    vae_build_decoder(&c->vae, &b, 1, size->height / c->vae.scale,
                      size->width / c->vae.scale);
    return g;
}

static struct graph *start_graph(const struct checkpoint *c,
                                 const struct picture_size *whole, bool *used)
{
    struct picture_size tile = checkpoint_tile_size(c, whole), *size = &tile;
    struct graph *g = picture_graph("start", size);
    struct build b = {g, c->vae.file, used};

    vae_build_encoder(&c->vae, &b, 1, size->height, size->width);
    return g;
}

struct graph *checkpoint_encode_graph(const struct checkpoint *c,
                                      const struct picture_size *size)
{
    return encode_graph(c, size, NULL);
}

struct graph *checkpoint_context_graph(const struct checkpoint *c,
                                       const struct picture_size *size)
{
    return context_graph(c, size, NULL);
}

struct graph *checkpoint_step_graph(const struct checkpoint *c,
                                    const struct picture_size *size)
{
    return step_graph(c, size, NULL);
}

struct graph *checkpoint_decode_graph(const struct checkpoint *c,
                                      const struct picture_size *size)
{
    return decode_graph(c, size, NULL);
}

struct graph *checkpoint_start_graph(const struct checkpoint *c,
                                     const struct picture_size *size)
{
    return start_graph(c, size, NULL);
}

struct graph *checkpoint_preview_graph(const struct vae *vae,
                                       const struct picture_size *size)
{
    struct graph *g = picture_graph("preview", size);
    struct build b = {g, vae->file, NULL};

    vae_build_decoder(vae, &b, 1, size->height / vae->scale, size->width / vae->scale);
    return g;
}

/* ---- metadata ---- */

static int meta_int(const struct weights_file *file, const char *key, int min, int max,
                    int *value, struct err *err)
{
    const char *text = weights_file_meta(file, key);
    int64_t number;

    if (!text)
        return 0;
    if (str_to_int(text, key, min, max, &number, err))
        return -1;
    *value = (int)number;
    return 0;
}

static int meta_double(const struct weights_file *file, const char *key, double *value,
                       struct err *err)
{
    const char *text = weights_file_meta(file, key);
    char *end;
    double number;

    if (!text)
        return 0;
    number = strtod(text, &end);
    if (end == text || *end || !isfinite(number))
        return err_set(err, ERR_BAD_FILE, "%s is '%.40s', a number was expected", key,
                       text);
    *value = number;
    return 0;
}

static int read_defaults(struct checkpoint *c, struct err *err)
{
    struct checkpoint_defaults *d = &c->defaults;
    const struct weights_file *f = c->file;
    const char *sampler = weights_file_meta(f, "mysti.default_sampler");
    const char *scheduler = weights_file_meta(f, "mysti.default_scheduler");

    *d = (struct checkpoint_defaults){.width = c->family->side[c->prediction],
                                      .height = c->family->side[c->prediction],
                                      .steps = 20,
                                      .cfg_scale = 7,
                                      .sampler = SAMPLER_EULER,
                                      .scheduler = SCHEDULER_NORMAL};
    if (unet_guide_width(c->unet)) {
        d->steps = 4;
        d->cfg_scale = 8;
        d->sampler = SAMPLER_LCM;
        d->scheduler = sampler_scheduler(SAMPLER_LCM);
    }
    if (meta_int(f, "mysti.default_width", 8, ENGINE_MAX_SIZE, &d->width, err) ||
        meta_int(f, "mysti.default_height", 8, ENGINE_MAX_SIZE, &d->height, err) ||
        meta_int(f, "mysti.default_steps", 1, ENGINE_MAX_STEPS, &d->steps, err) ||
        meta_double(f, "mysti.default_cfg_scale", &d->cfg_scale, err))
        return -1;
    if (scheduler && scheduler_parse(scheduler, &d->scheduler, err))
        return err_wrap(err, "mysti.default_scheduler");
    if (sampler && sampler_parse(sampler, &d->sampler, &d->scheduler, err))
        return err_wrap(err, "mysti.default_sampler");
    return 0;
}

static void read_name(struct checkpoint *c, const char *path)
{
    const char *name = weights_file_meta(c->file, "mysti.name"), *dot;

    if (!name || !*name)
        name = file_name(path);
    dot = strcmp(weights_file_format(c->file), WEIGHTS_FOLDER) ? strrchr(name, '.')
                                                               : NULL;
    c->name = dot && dot != name && name == file_name(path)
                  ? mem_strndup(name, (size_t)(dot - name))
                  : mem_strdup(name);
}

/* ---- checks ---- */

/* The layers that no prompt goes through, and what OpenCLIP's encoders bring along. */
static bool is_idle_text(const struct checkpoint *c, const char *name)
{
    for (int i = 0; i < c->family->text_count; i++)
        for (int layer = 0; layer < c->clips[i].layers; layer++)
            if (layer >= c->clips[i].layers - c->clips[i].skipped &&
                str_has_prefix(name,
                               NAME("%s%d.", clip_layers(&c->clips[i]).text, layer)))
                return true;
    return false;
}

/* file: the checkpoint's, or another VAE's, of which only that part counts */
static int refuse_unused(const struct checkpoint *c, const struct weights_file *file,
                         const bool *used, struct err *err)
{
    struct name networks[3 + FAMILY_TEXTS_MAX] = {{"first_stage_model.decoder."},
                                                  {"first_stage_model.encoder."},
                                                  {"model.diffusion_model."}};
    int count = 2;

    if (file == c->file) {
        count++;
        for (int i = 0; i < c->family->text_count; i++)
            networks[count++] = clip_layers(&c->clips[i]);
    }
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);

        for (int n = 0; n < count; n++)
            if (!used[i] && str_has_prefix(w->name, networks[n].text) &&
                !is_idle_text(c, w->name))
                return err_set(err, ERR_BAD_FILE,
                               "tensor %s is not part of a model of the %s family",
                               w->name, c->family->title);
    }
    return 0;
}

static int check_graph(struct graph *g, struct err *err)
{
    int result = graph_check(g, err);

    graph_free(g);
    return result;
}

/* Also that its output is what there will be room for. */
static int check_result(struct graph *g, const char *whose, const struct shape *wanted,
                        struct err *err)
{
    int result = graph_check(g, err);
    const struct shape *is =
        result ? NULL : graph_shape(g, g->nodes[g->outputs[0]].out);

    if (is && memcmp(is->dim, wanted->dim, sizeof(is->dim)) != 0)
        result = err_set(
            err, ERR_BAD_FILE,
            "its %s makes %lld x %lld pixels of %lld channels where %lld x %lld "
            "of %lld are expected",
            whose, (long long)is->dim[2], (long long)is->dim[1], (long long)is->dim[3],
            (long long)wanted->dim[2], (long long)wanted->dim[1],
            (long long)wanted->dim[3]);
    graph_free(g);
    return result;
}

/* Both halves of the VAE that is in use. */
static int check_vae_graphs(const struct checkpoint *c, const struct picture_size *size,
                            bool *used, struct err *err)
{
    const struct vae *vae = &c->vae;
    struct shape picture = shape4(1, size->height, size->width, 3);
    struct shape latent = shape4(1, size->height / vae->scale, size->width / vae->scale,
                                 vae_moments(vae));

    if (check_result(decode_graph(c, size, used), "decoder", &picture, err))
        return -1;
    return vae->has_encoder
               ? check_result(start_graph(c, size, used), "encoder", &latent, err)
               : 0;
}

/* What the U-Net reads beside the latent. */
static int check_channels(struct checkpoint *c, int64_t takes, int64_t gives,
                          struct err *err)
{
    if (gives != c->vae.latent_channels)
        return err_set(
            err, ERR_BAD_FILE,
            "its U-Net makes latents of %lld channels, its decoder reads %lld",
            (long long)gives, (long long)c->vae.latent_channels);
    c->is_inpainting = takes == 2 * gives + 1;
    if (c->is_inpainting && c->vae.file && !c->vae.has_encoder)
        return err_set(err, ERR_BAD_FILE,
                       "is made for inpainting, which needs an encoder (tensors "
                       "first_stage_model.encoder are missing)");
    if (takes != gives && !c->is_inpainting)
        return err_set(err, ERR_BAD_FILE,
                       "its U-Net takes %lld channels and returns %lld: it is made for "
                       "depth or editing, which is not supported",
                       (long long)takes, (long long)gives);
    return 0;
}

static int check_step_graph(struct checkpoint *c, const struct picture_size *size,
                            bool *used, struct err *err)
{
    struct graph *g = step_graph(c, size, used);
    int64_t takes = unet_latent_channels(c->unet), gives = 0;

    if (graph_check(g, err)) {
        graph_free(g);
        return -1;
    }
    gives = shape_last(&g->tensors[g->nodes[g->outputs[0]].out].shape);
    graph_free(g);
    if (!c->vae.file)
        c->vae.latent_channels = c->own_vae.latent_channels = gives;
    return check_channels(c, takes, gives, err);
}

static int check_networks(struct checkpoint *c, bool *used, struct err *err)
{
    struct picture_size size = {.width = c->defaults.width,
                                .height = c->defaults.height,
                                .batch = 2,
                                .chunks = 1};

    if (c->defaults.width % c->vae.scale || c->defaults.height % c->vae.scale)
        return err_set(err, ERR_BAD_FILE,
                       "its default size %dx%d is not made of multiples of %d",
                       c->defaults.width, c->defaults.height, c->vae.scale);
    if (check_graph(encode_graph(c, &size, used), err) ||
        check_graph(context_graph(c, &size, used), err) ||
        check_step_graph(c, &size, used, err) ||
        (c->vae.file && check_graph(decode_graph(c, &size, used), err)))
        return -1;
    for (size_t i = 0; i < weights_file_count(c->file); i++)
        if (used[i])
            c->parameters += weight_count(weights_file_at(c->file, i));
    if (c->vae.file && check_vae_graphs(c, &size, used, err))
        return -1;
    return refuse_unused(c, c->file, used, err);
}

/* ---- opening ---- */

static int open_texts(struct checkpoint *c, struct err *err)
{
    int heads = 0;

    if (meta_int(c->file, "mysti.text_heads", 1, 1024, &heads, err))
        return -1;
    for (int i = 0; i < c->family->text_count; i++) {
        struct clip *clip = &c->clips[i];

        /* the metadata is about the first; SDXL's second is another size */
        if (clip_open(clip, c->file, &c->family->texts[i], i ? 0 : heads, err))
            return -1;
        if (clip->positions != TOKENIZER_CONTEXT)
            return err_set(err, ERR_BAD_FILE,
                           "its text encoder has %lld positions, CLIP's has %d",
                           (long long)clip->positions, TOKENIZER_CONTEXT);
        if (clip->vocabulary < TOKENIZER_VOCABULARY)
            return err_set(err, ERR_BAD_FILE,
                           "its token table has %lld rows, CLIP's has %d",
                           (long long)clip->vocabulary, TOKENIZER_VOCABULARY);
        c->text_width += clip->width;
        if (clip->projection)
            c->summary = clip;
    }
    return 0;
}

static int open_unet(struct checkpoint *c, struct err *err)
{
    struct unet_heads heads = c->family->heads;
    int64_t sizes = ENGINE_SIZES * CHECKPOINT_SINUSOIDS;
    int64_t told = c->summary ? c->summary->summary_width + sizes : 0;

    if (meta_int(c->file, "mysti.unet_heads", 1, 1024, &heads.count, err))
        return -1;
    if (unet_open(&c->unet, c->file, heads, err))
        return -1;
    if (unet_label_width(c->unet) == told)
        return 0;
    return err_set(err, ERR_BAD_FILE,
                   "its U-Net is told %lld numbers beside the text "
                   "(model.diffusion_model.label_emb), the %s family has %lld",
                   (long long)unet_label_width(c->unet), c->family->title,
                   (long long)told);
}

/* A file without any tensor of a VAE draws with another file's. */
static int open_own_vae(struct checkpoint *c, struct err *err)
{
    for (size_t i = 0; i < weights_file_count(c->file); i++)
        if (str_has_prefix(weights_file_at(c->file, i)->name, "first_stage_model."))
            return vae_open(&c->own_vae, c->file, err);
    c->own_vae = (struct vae){.scale = VAE_USUAL_SCALE};
    return 0;
}

static int open_networks(struct checkpoint *c, struct err *err)
{
    int result;
    bool *used;

    if (family_find(&c->family, c->file, err) ||
        family_prediction(&c->prediction, c->family, c->file, err) ||
        open_texts(c, err) || open_unet(c, err) || read_defaults(c, err) ||
        open_own_vae(c, err))
        return -1;
    c->vae = c->own_vae;
    c->ends_in_noise = weights_file_find(c->file, "ztsnr") != NULL;
    used = mem_zalloc(weights_file_count(c->file) * sizeof(*used));
    result = check_networks(c, used, err);
    free(used);
    return result;
}

int checkpoint_open(struct checkpoint **ret_checkpoint, const char *path,
                    struct err *err)
{
    struct checkpoint *c = mem_zalloc(sizeof(*c));

    if (weights_file_open(&c->file, path, err)) {
        checkpoint_close(c);
        return -1;
    }
    read_name(c, path);
    if (open_networks(c, err)) {
        if (err && err->code == ERR_INVALID)
            err->code = ERR_BAD_FILE; /* a value in the file, not in the request */
        checkpoint_close(c);
        return err_wrap(err, "%s", path);
    }
    *ret_checkpoint = c;
    return 0;
}

/* ---- another VAE ---- */

static int check_latents(const struct vae *vae, const struct checkpoint *c,
                         struct err *err)
{
    const struct vae *own = &c->own_vae;
    enum latents told = family_latents(vae->file);

    if (told != LATENTS_UNTOLD && (told == LATENTS_SDXL) != c->family->is_sdxl)
        return err_set(
            err, ERR_BAD_FILE,
            "is for latents of %s, as its file says, and those of %s are %s's: "
            "it would draw in wrong colours",
            told == LATENTS_SDXL ? "SDXL" : "SD 1.x and 2.x", c->name,
            c->family->title);
    if (vae->latent_channels == own->latent_channels && vae->scale == own->scale)
        return 0;
    return err_set(err, ERR_BAD_FILE,
                   "reads latents of %lld channels and %d pixels a side, those of "
                   "%s have %lld and %d",
                   (long long)vae->latent_channels, vae->scale, c->name,
                   (long long)own->latent_channels, own->scale);
}

int checkpoint_check_preview(const struct checkpoint *c, const struct vae *vae,
                             struct err *err)
{
    const struct picture_size size = {.width = c->defaults.width,
                                      .height = c->defaults.height};
    struct shape picture = shape4(1, size.height, size.width, 3);

    return check_latents(vae, c, err) ||
                   check_result(checkpoint_preview_graph(vae, &size), "decoder",
                                &picture, err)
               ? -1
               : 0;
}

/* `with` is the checkpoint with that VAE. */
static int check_vae(const struct checkpoint *with, struct err *err)
{
    const struct vae *vae = &with->vae;
    struct picture_size size = {.width = with->defaults.width,
                                .height = with->defaults.height};
    bool *used;
    int result;

    if (check_latents(vae, with, err))
        return -1;
    if (with->is_inpainting && !vae->has_encoder)
        return err_set(err, ERR_BAD_FILE, "has no encoder, which %s needs to inpaint",
                       with->name);
    used = mem_zalloc(weights_file_count(vae->file) * sizeof(*used));
    result = check_vae_graphs(with, &size, used, err);
    if (!result)
        result = refuse_unused(with, vae->file, used, err);
    free(used);
    return result;
}

int checkpoint_use_vae(struct checkpoint *c, const struct weights_file *file,
                       struct err *err)
{
    struct checkpoint with = *c;

    with.vae = c->own_vae;
    if (file && (vae_open(&with.vae, file, err) || check_vae(&with, err)))
        return -1;
    c->vae = with.vae;
    return 0;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c)
        return;
    unet_free(c->unet);
    weights_file_close(c->file);
    free(c->name);
    free(c);
}
