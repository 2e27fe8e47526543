/* engine: opening, loading, checking and estimating. Drawing itself is generate.c.
 *
 * A loaded model is a checkpoint (the mapped file and what was read from its names), a
 * store of packed weights (the VAE's in one of its own), and the stages (encode, context, step, decode) compiled for the
 * size that was asked for last. Loading compiles for the model's default size and packs
 * everything, so that the first picture does not pay for it and a file that cannot be
 * packed is refused at once; the mapped pages are given back afterwards. Another size
 * compiles the graphs again and finds its weights in the store.
 *
 * Memory: resident are the stores. A job adds one block (job_memory: the arena of the
 * largest stage and the buffers between the stages), mapped when the job starts and
 * gone when it ends, and little else, so that engine_estimate() is a sum of numbers
 * that are known. Keeping the block between jobs was rejected: it would have to appear
 * in the server's ledger as resident while it does nothing. */
#include "engine/engine.h"

#include "base/mem.h"
#include "base/str.h"
#include "engine/hires.h"
#include "engine/image/png.h"
#include "engine/loras.h"
#include "engine/model.h"
#include "engine/start.h"
#include "engine/text/tokenizer.h"
#include "engine/vaes.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* ---- the engine ---- */

static int parse_precision(const char *name, enum backend_precision *ret,
                           struct err *err)
{
    if (!name)
        *ret = PRECISION_AUTO;
    else if (strcmp(name, "f32") == 0)
        *ret = PRECISION_F32;
    else if (strcmp(name, "bf16") == 0)
        *ret = PRECISION_BF16;
    else
        return err_set_param(err, ERR_INVALID, "precision",
                             "there is no precision '%.40s': f32 and bf16 are known",
                             name);
    return 0;
}

static int parse_preview_method(const char *name, bool *ret_by_taesd, struct err *err)
{
    *ret_by_taesd = name && strcmp(name, "taesd") == 0;
    if (!name || *ret_by_taesd || strcmp(name, "latent2rgb") == 0)
        return 0;
    return err_set_param(err, ERR_INVALID, "preview-method",
                         "there is no preview method '%.40s': latent2rgb and taesd are "
                         "known",
                         name);
}

static int parse_weights(const char *name, const struct backend *backend,
                         enum store_weights *ret, struct err *err)
{
    *ret = STORE_AS_COMPUTED;
    if (!name || strcmp(name, "auto") == 0)
        return 0;
    if (strcmp(name, "int8") != 0)
        return err_set_param(err, ERR_INVALID, "weights",
                             "there are no weights '%.40s': auto and int8 are known",
                             name);
    if (!backend->ops->has_int8)
        return err_set_param(err, ERR_INVALID, "weights",
                             "the back end '%s' has no int8 weights: choose another "
                             "one, or weights auto",
                             backend->ops->name);
    *ret = STORE_INT8;
    return 0;
}

int engine_open(struct engine **ret_engine, const struct engine_options *options,
                struct err *err)
{
    struct backend_options backend = {.threads = options->threads};
    struct engine *engine;
    bool by_taesd;

    if (parse_precision(options->precision, &backend.precision, err) ||
        parse_preview_method(options->preview_method, &by_taesd, err))
        return -1;
    engine = mem_zalloc(sizeof(*engine));
    engine->previews_by_taesd = by_taesd;
    if (backend_open(options->backend, &backend, &engine->backend, err)) {
        free(engine);
        return -1;
    }
    if (parse_weights(options->weights, engine->backend, &engine->weights, err)) {
        engine_close(engine);
        return -1;
    }
    for (int i = 0; i < ENGINE_LORA_FOLDERS && options->lora_folders[i]; i++)
        engine->lora_folders[i] = mem_strdup(options->lora_folders[i]);
    if (options->upscaler_folder)
        engine->upscaler_folders[0] = mem_strdup(options->upscaler_folder);
    if (options->embedding_folder)
        engine->embedding_folders[0] = mem_strdup(options->embedding_folder);
    if (options->vae_folder)
        engine->vae_folders[0] = mem_strdup(options->vae_folder);
    if (options->vae)
        engine->vae = mem_strdup(options->vae);
    *ret_engine = engine;
    return 0;
}

void engine_close(struct engine *engine)
{
    if (!engine)
        return;
    backend_close(engine->backend);
    for (int i = 0; i < ENGINE_LORA_FOLDERS; i++)
        free(engine->lora_folders[i]);
    free(engine->upscaler_folders[0]);
    free(engine->embedding_folders[0]);
    free(engine->vae_folders[0]);
    free(engine->vae);
    free(engine);
}

const char *engine_backend_name(const struct engine *engine)
{
    return engine->backend->ops->name;
}

const char *engine_backend_names(void)
{
    return backend_names();
}

const char *engine_phase_name(enum engine_phase phase)
{
    static const char *const names[] = {"encode", "sample", "decode", "upscale"};

    return names[phase];
}

/* ---- stages ---- */

static void stages_free(struct engine_model *model, struct stages *stages)
{
    if (!stages)
        return;
    for (int i = 0; i < STAGE_COUNT; i++) {
        if (stages->programs[i])
            model->engine->backend->ops->program_free(stages->programs[i]);
        graph_free(stages->graphs[i]);
    }
    free(stages);
}

void model_forget_stages(struct engine_model *model)
{
    stages_free(model, model->stages);
    model->stages = NULL;
}

/* The VAE's stages have a store of their own, see vaes.h, and so has that of previews. */
static struct weight_store *store_of(const struct engine_model *model, int stage)
{
    return stage == STAGE_PREVIEW                          ? model->preview_store
           : stage == STAGE_DECODE || stage == STAGE_START ? model->vae_store
                                                           : model->store;
}

uint64_t model_resident_bytes(const struct engine_model *model)
{
    const struct backend_ops *ops = model->engine->backend->ops;

    return ops->store_bytes(model->store) + ops->store_bytes(model->vae_store) +
           ops->store_bytes(model->preview_store);
}

uint64_t model_missing_bytes(const struct engine_model *model)
{
    uint64_t bytes = 0;

    for (int i = 0; i < STAGE_COUNT; i++)
        if (model->stages->programs[i])
            bytes +=
                model->engine->backend->ops->missing_bytes(model->stages->programs[i]);
    return bytes;
}

int model_compile(struct engine_model *model, const struct picture_size *size,
                  struct err *err)
{
    struct backend *backend = model->engine->backend;
    struct stages *stages;

    if (model->stages && memcmp(&model->stages->size, size, sizeof(*size)) == 0)
        return 0;
    stages = mem_zalloc(sizeof(*stages));
    stages->size = *size;
    stages->graphs[STAGE_ENCODE] = checkpoint_encode_graph(model->checkpoint, size);
    stages->graphs[STAGE_CONTEXT] = checkpoint_context_graph(model->checkpoint, size);
    stages->graphs[STAGE_STEP] = checkpoint_step_graph(model->checkpoint, size);
    if (model->checkpoint->vae.file)
        stages->graphs[STAGE_DECODE] = checkpoint_decode_graph(model->checkpoint, size);
    if (model->checkpoint->vae.file && size->starts)
        stages->graphs[STAGE_START] = checkpoint_start_graph(model->checkpoint, size);
    if (model->preview_vae.file && !size->tile)
        stages->graphs[STAGE_PREVIEW] =
            checkpoint_preview_graph(&model->preview_vae.vae, size);
    for (int i = 0; i < STAGE_COUNT; i++) {
        if (stages->graphs[i] &&
            backend->ops->compile(backend, stages->graphs[i], store_of(model, i),
                                  &stages->programs[i], err)) {
            stages_free(model, stages);
            return -1;
        }
    }
    stages_free(model, model->stages);
    model->stages = stages;
    return 0;
}

int model_pack(struct engine_model *model, struct stop *stop, struct err *err)
{
    const struct backend_ops *ops = model->engine->backend->ops;

    for (int i = 0; i < STAGE_COUNT; i++)
        if (model->stages->programs[i] &&
            ops->load(model->stages->programs[i], stop, err))
            return -1;
    weights_file_forget(model->checkpoint->file);
    if (model->checkpoint->vae.file)
        weights_file_forget(model->checkpoint->vae.file);
    if (model->preview_vae.file)
        weights_file_forget(model->preview_vae.file);
    return 0;
}

/* ---- models ---- */

struct loading {
    const struct engine_model *model;
    const struct engine_load_events *events;
    double bytes; /* to be packed in all */
};

static bool tell_progress(void *user)
{
    const struct loading *l = user;

    return l->events->on_progress(
        l->events->user, 1 - (double)model_missing_bytes(l->model) / (l->bytes + 1));
}

static int pack_all(struct engine_model *model, const struct engine_load_events *events,
                    struct err *err)
{
    struct loading loading = {model, events, (double)model_missing_bytes(model)};
    struct stop stop = {.user = &loading};

    if (events && events->on_progress)
        stop.is_cancelled = tell_progress;
    if (!model_pack(model, &stop, err))
        return 0;
    return stop_is_set(&stop) ? err_set(err, ERR_CANCELLED, "loading was cancelled")
                              : -1;
}

int engine_model_load(struct engine_model **ret_model, struct engine *engine,
                      const char *path, const struct engine_load_events *events,
                      struct err *err)
{
    struct engine_model *model = mem_zalloc(sizeof(*model));
    struct picture_size size;

    model->engine = engine;
    if (checkpoint_open(&model->checkpoint, path, err))
        goto fail;
    model->store = engine->backend->ops->store_new(engine->backend, engine->weights);
    model->vae_store =
        engine->backend->ops->store_new(engine->backend, STORE_AS_COMPUTED);
    model->preview_store =
        engine->backend->ops->store_new(engine->backend, STORE_AS_COMPUTED);
    size = (struct picture_size){.width = model->checkpoint->defaults.width,
                                 .height = model->checkpoint->defaults.height,
                                 .batch = 2,
                                 .starts = model->checkpoint->is_inpainting,
                                 .chunks = 1};
    if (preview_vae_open(model, err) ||
        (engine->vae && model_take_vae(model, NULL, err)) ||
        model_compile(model, &size, err) || pack_all(model, events, err)) {
        err_wrap(err, "%s", path);
        goto fail;
    }
    if (events && events->on_progress)
        (void)events->on_progress(events->user, 1);
    *ret_model = model;
    return 0;

fail:
    engine_model_free(model);
    return -1;
}

void engine_model_free(struct engine_model *model)
{
    if (!model)
        return;
    stages_free(model, model->stages);
    if (model->store)
        model->engine->backend->ops->store_free(model->store);
    if (model->vae_store)
        model->engine->backend->ops->store_free(model->vae_store);
    if (model->preview_store)
        model->engine->backend->ops->store_free(model->preview_store);
    preview_vae_close(&model->preview_vae);
    loras_close(model->loras);
    other_vae_close(model->other_vae);
    checkpoint_close(model->checkpoint);
    free(model);
}

void engine_model_info(const struct engine_model *model,
                       struct engine_model_info *ret_info)
{
    const struct checkpoint *c = model->checkpoint;

    *ret_info = (struct engine_model_info){
        .path = weights_file_path(c->file),
        .name = c->name,
        .family = c->family->name,
        .prediction = c->prediction == PREDICTION_V ? "v" : "eps",
        .parameters = c->parameters,
        .resident_bytes = model_resident_bytes(model),
        .default_width = c->defaults.width,
        .default_height = c->defaults.height,
        .default_steps = c->defaults.steps,
        .default_cfg_scale = c->defaults.cfg_scale,
        .default_sampler = sampler_name(c->defaults.sampler),
        .default_scheduler = scheduler_name(c->defaults.scheduler),
    };
}

/* ---- jobs ---- */

void engine_job_defaults(const struct engine_model *model, struct engine_job *ret_job)
{
    const struct checkpoint_defaults *d = &model->checkpoint->defaults;

    *ret_job =
        (struct engine_job){.negative_prompt = "",
                            .width = d->width,
                            .height = d->height,
                            .steps = d->steps,
                            .cfg_scale = d->cfg_scale,
                            .seed = -1,
                            .variation_seed = -1,
                            .sampler = sampler_name(d->sampler),
                            .scheduler = scheduler_name(d->scheduler),
                            .count = 1,
                            .rng = "nv",
                            .dialect = "a1111",
                            .eta = -1,
                            .sizes = {-1, -1, -1, -1, -1, -1},
                            .s_noise = 1,
                            .r = 0.5,
                            .start = {.strength = 0.75, .mask_blur = 4, .padding = 32},
                            .hires = {.strength = 0.7}};
}

static int check_range(const char *param, int64_t value, int64_t min, int64_t max,
                       struct err *err)
{
    if (value >= min && value <= max)
        return 0;
    return err_set_param(err, ERR_INVALID, param,
                         "%s is %lld, %lld to %lld are possible", param,
                         (long long)value, (long long)min, (long long)max);
}

static int check_size(const char *param, int value, int scale, struct err *err)
{
    if (check_range(param, value, scale, ENGINE_MAX_SIZE, err))
        return -1;
    if (value % scale)
        return err_set_param(
            err, ERR_INVALID, param, "%s is %d, a multiple of %d is needed: %d or %d",
            param, value, scale, value / scale * scale, value / scale * scale + scale);
    return 0;
}

const char *const engine_size_names[ENGINE_SIZES] = {
    "original_height", "original_width", "crop_top",
    "crop_left",       "target_height",  "target_width"};

static int check_sizes(const struct engine_job *job, struct err *err)
{
    for (int i = 0; i < ENGINE_SIZES; i++)
        if (check_range(engine_size_names[i], job->sizes[i], -1, ENGINE_MAX_TOLD_SIZE,
                        err))
            return -1;
    return 0;
}

static int parse_prediction(const char *name, enum prediction *ret, struct err *err)
{
    if (name && strcmp(name, "eps") != 0 && strcmp(name, "v") != 0)
        return err_set_param(err, ERR_INVALID, "prediction",
                             "there is no prediction '%.40s': eps and v are known",
                             name);
    if (name)
        *ret = strcmp(name, "v") == 0 ? PREDICTION_V : PREDICTION_EPS;
    return 0;
}

static int check_seeds(const struct engine_job *job, struct err *err)
{
    for (int i = 0; job->seeds && i < job->count; i++)
        if (check_range("seed", job->seeds[i], 0, (int64_t)1 << 53, err))
            return -1;
    if (check_range("seed", job->seed, -1, (int64_t)1 << 53, err) ||
        check_range("variation_seed", job->variation_seed, -1, (int64_t)1 << 53, err))
        return -1;
    if (!(job->variation_strength >= 0 && job->variation_strength <= 1))
        return err_set_param(err, ERR_INVALID, "variation_strength",
                             "variation_strength is %g, 0 to 1 are possible",
                             job->variation_strength);
    return 0;
}

static int check_prompt(const char *param, const char *text, struct err *err)
{
    if (!str_is_utf8(text, strlen(text)))
        return err_set_param(err, ERR_INVALID, param, "%s is not UTF-8", param);
    return 0;
}

static int parse_rng(const char *name, enum noise_kind *ret, struct err *err)
{
    if (!name || strcasecmp(name, "nv") == 0)
        *ret = NOISE_NV;
    else if (strcasecmp(name, "cpu") == 0)
        *ret = NOISE_CPU;
    else
        return err_set_param(err, ERR_INVALID, "rng",
                             "there is no rng '%.40s': nv and cpu are known", name);
    return 0;
}

static int parse_names(const struct engine_model *model, const struct engine_job *job,
                       struct plan_of_job *plan, struct err *err)
{
    plan->sampler = model->checkpoint->defaults.sampler;
    plan->scheduler = model->checkpoint->defaults.scheduler;
    plan->prediction = model->checkpoint->prediction;
    bool is_automatic = job->scheduler && strcasecmp(job->scheduler, "automatic") == 0;

    if (job->scheduler && !is_automatic &&
        scheduler_parse(job->scheduler, &plan->scheduler, err))
        return -1;
    if (job->sampler &&
        sampler_parse(job->sampler, &plan->sampler, &plan->scheduler, err))
        return -1;
    if (is_automatic)
        plan->scheduler = sampler_scheduler(plan->sampler);
    if (job->dialect && dialect_parse(job->dialect, &plan->dialect, err))
        return -1;
    if (parse_prediction(job->prediction, &plan->prediction, err))
        return -1;
    return parse_rng(job->rng, &plan->rng, err);
}

static int check_number(const char *param, double value, double min, double max,
                        struct err *err)
{
    if (value >= min && value <= max)
        return 0;
    return err_set_param(err, ERR_INVALID, param, "%s is %g, %g to %g are possible",
                         param, value, min, max);
}

static int understand_sampling(const struct engine_job *job, struct plan_of_job *plan,
                               struct err *err)
{
    struct sampler_options *o = &plan->options;

    if (check_number("cfg_scale", job->cfg_scale, 0, 100, err) ||
        (job->eta != -1 && check_number("eta", job->eta, 0, 10, err)) ||
        check_number("s_churn", job->s_churn, 0, 1000, err) ||
        check_number("s_tmin", job->s_tmin, 0, 1000, err) ||
        check_number("s_tmax", job->s_tmax, 0, 1000, err) ||
        check_number("s_noise", job->s_noise, 0, 10, err) ||
        check_number("r", job->r, 0.01, 1, err) ||
        check_number("s_min_uncond", job->s_min_uncond, 0, 1000, err) ||
        check_number("rho", job->rho, 0, 100, err) ||
        check_range("ensd", job->ensd, 0, (int64_t)1 << 53, err))
        return -1;
    *o = sampler_options(plan->sampler, plan->dialect);
    if (job->eta >= 0)
        o->eta = job->eta;
    o->s_churn = job->s_churn;
    o->s_tmin = job->s_tmin;
    if (job->s_tmax > 0)
        o->s_tmax = job->s_tmax;
    o->s_noise = job->s_noise;
    o->r = job->r;
    plan->skips = job->s_min_uncond > 0;
    plan->guidance = job->cfg_scale;
    if (sampler_wants_uncond(plan->sampler) && plan->dialect == DIALECT_A1111)
        plan->guidance /= 12.5; /* so that the usual scales mean the usual strength */
    plan->levels = plan->walked = job->steps;
    return 0;
}

int engine_fill_parse(const char *name, enum engine_fill *ret, struct err *err)
{
    static const struct {
        const char *name, *number;
        enum engine_fill fill;
    } fills[] = {{"fill", "0", ENGINE_FILL_AROUND},
                 {"original", "1", ENGINE_FILL_ORIGINAL},
                 {"latent noise", "2", ENGINE_FILL_NOISE},
                 {"latent nothing", "3", ENGINE_FILL_NOTHING}};

    for (size_t i = 0; i < sizeof(fills) / sizeof(*fills); i++)
        if (strcasecmp(name, fills[i].name) == 0 ||
            strcmp(name, fills[i].number) == 0) {
            *ret = fills[i].fill;
            return 0;
        }
    return err_set_param(err, ERR_INVALID, "inpainting_fill",
                         "there is no fill '%.40s': original, fill, latent noise and "
                         "latent nothing are known",
                         name);
}

int engine_seamless_parse(const char *name, int *ret, struct err *err)
{
    static const char *const names[] = {"none", "x", "y", "both"};

    for (int i = 0; i < 4; i++)
        if (strcasecmp(name, names[i]) == 0) {
            *ret = i; /* the two bits */
            return 0;
        }
    return err_set_param(err, ERR_INVALID, "seamless",
                         "seamless is '%.40s': none, x, y and both are possible", name);
}

/* All its steps are walked, of a schedule that is so much longer. */
static int understand_second(const struct engine_model *model,
                             const struct engine_job *job, struct plan_of_job *plan,
                             struct err *err)
{
    double strength = fmin(job->start.strength, 0.999);

    if (job->pass->rgb && !model->checkpoint->vae.has_encoder)
        return err_set_param(err, ERR_INVALID, "hires",
                             "%s can only enlarge latents: its file has no encoder",
                             model->checkpoint->name);
    plan->begins = true;
    plan->size.starts |= job->pass->rgb != NULL;
    plan->levels = (int)fmin(job->steps / fmax(strength, 1e-9), SCHEDULE_MAX_LEVELS);
    return 0;
}

/* A1111's rule: of `steps` noise levels the last strength * steps + 1 are walked. ComfyUI's: of steps / strength
 * levels the last `steps`. */
static int understand_start(const struct engine_model *model,
                            const struct engine_job *job, struct plan_of_job *plan,
                            struct err *err)
{
    const struct engine_start *o = &job->start;

    if (job->pass && job->pass->steps_before)
        return understand_second(model, job, plan, err);
    if (!o->image.data)
        return o->mask.data ? err_set_param(err, ERR_INVALID, "mask",
                                            "a mask without a picture to start from")
                            : 0;
    if (!model->checkpoint->vae.has_encoder)
        return err_set_param(err, ERR_INVALID, "image",
                             "%s cannot start from a picture: its file has no encoder",
                             model->checkpoint->name);
    if (!(o->strength >= 0 && o->strength <= 1))
        return err_set_param(err, ERR_INVALID, "strength",
                             "strength is %g, 0 to 1 are possible", o->strength);
    if (!(o->mask_blur >= 0 && o->mask_blur <= 256))
        return err_set_param(err, ERR_INVALID, "mask_blur",
                             "mask_blur is %g, 0 to 256 pixels are possible",
                             o->mask_blur);
    if (check_range("padding", o->padding, 0, ENGINE_MAX_SIZE, err))
        return -1;
    plan->size.starts = 1;
    plan->begins = true;
    if (plan->dialect == DIALECT_COMFY)
        plan->levels =
            (int)fmin(job->steps / fmax(o->strength, 1e-9), SCHEDULE_MAX_LEVELS);
    else
        plan->walked = (int)(fmin(o->strength, 0.999) * job->steps) + 1;
    return 0;
}

/* A1111 has it for SD 1.x alone; ComfyUI for all, but a family that never reads the last layer does not begin to. */
static int understand_clip_skip(const struct engine_model *model,
                                const struct engine_job *job, struct plan_of_job *plan,
                                struct err *err)
{
    const struct checkpoint *c = model->checkpoint;
    int skip = job->clip_skip ? job->clip_skip : 1, most = c->clips[0].layers;

    for (int i = 1; i < c->family->text_count; i++)
        if (c->clips[i].layers < most)
            most = c->clips[i].layers;
    if (check_range("clip_skip", skip, 1, most, err))
        return -1;
    if (c->family->texts[0].skipped == 0 || plan->dialect == DIALECT_COMFY)
        plan->size.skipped = skip - 1;
    return 0;
}

int job_understand(const struct engine_model *model, const struct engine_job *job,
                   struct plan_of_job *ret_plan, struct err *err)
{
    int scale = model->checkpoint->vae.scale;
    struct plan_of_job plan = {0};

    if (!job->prompt)
        return err_set_param(err, ERR_INVALID, "prompt", "there is no prompt");
    if (check_prompt("prompt", job->prompt, err) ||
        check_prompt("negative_prompt",
                     job->negative_prompt ? job->negative_prompt : "", err) ||
        check_size("width", job->width, scale, err) ||
        check_size("height", job->height, scale, err) ||
        check_range("steps", job->steps, 1, ENGINE_MAX_STEPS, err) ||
        check_range("count", job->count, 1, ENGINE_MAX_COUNT, err) ||
        check_seeds(job, err) || check_sizes(job, err) ||
        parse_names(model, job, &plan, err))
        return -1;
    if (understand_sampling(job, &plan, err))
        return -1;
    if (job->vae_tiling && job->seamless)
        return err_set_param(err, ERR_INVALID, "vae_tiling",
                             "a seamless picture cannot go through the VAE in tiles: "
                             "they know nothing of its opposite side");
    plan.tiles = job->vae_tiling;
    if (unet_guide_width(model->checkpoint->unet))
        plan.guidance = 1; /* the U-Net does that itself */
    plan.size = (struct picture_size){.width = job->width,
                                      .height = job->height,
                                      .seamless = job->seamless,
                                      .starts = model->checkpoint->is_inpainting};
    if (understand_clip_skip(model, job, &plan, err) ||
        job_understand_prompts(model, job, &plan, err) ||
        understand_start(model, job, &plan, err))
        return -1;
    *ret_plan = plan;
    return 0;
}

int engine_job_check(struct engine_model *model, const struct engine_job *job,
                     struct err *err)
{
    struct plan_of_job plan;

    return model_take_vae(model, job->vae, err) ||
                   job_understand(model, job, &plan, err) ||
                   hires_check(model, job, err)
               ? -1
               : 0;
}
