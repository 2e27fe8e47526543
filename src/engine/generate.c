/* generate: one job from prompt to PNG.
 *
 * loras.c: the LoRAs that the prompts ask for, laid over the weights.
 * memory.c: in which way, when memory is short. describe.c: the text inside the picture. pixels.c: through the VAE, whole or in tiles.
 * encode.c: what the prompts say, through the text encoder, and the U-Net's keys and values. Then per picture: noise,
 * the sampler's walk along the sigmas (each step one U-Net run over the batch of the prompt's parts and the negative
 * prompt), decode, PNG.
 *
 * A job that starts from a picture encodes that once; its walk begins in the middle of
 * the schedule, at the picture plus noise, and where a mask keeps the picture every
 * denoised latent is put back to it.
 *
 * Guidance is applied to what the model predicts rather than to the denoised latents;
 * both are the same, because denoised = skip x + out prediction is linear in the
 * prediction.
 *
 * Cancelling: the back end asks before every operation and inside of those that take long, so a job ends within a part of
 * one of them, and the arena, the contexts and everything else of the job lie in one mapped
 * block that goes away in one place. */
#include "base/mem.h"
#include "base/pages.h"
#include "engine/hires.h"
#include "engine/image/png.h"
#include "engine/inversions.h"
#include "engine/loras.h"
#include "engine/run.h"
#include "engine/start.h"
#include "engine/text/tokenizer.h"
#include "engine/vaes.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>

static bool is_cancelled(void *user)
{
    struct run *run = user;

    return run->events->is_cancelled && run->events->is_cancelled(run->events->user);
}

static void tell_phase(const struct run *run, enum engine_phase phase)
{
    if (run->events->on_phase)
        run->events->on_phase(run->events->user, phase, run->image);
}

void *run_at(const struct run *run, size_t offset)
{
    return run->block + offset;
}

int run_stage(struct run *run, enum stage stage, void *const *inputs,
              void *const *outputs, struct err *err)
{
    struct program_run how = {.arena = run_at(run, run->memory.arena),
                              .inputs = inputs,
                              .outputs = outputs,
                              .is_cancelled = is_cancelled,
                              .user = run};

    return run->model->engine->backend->ops->run(run->model->stages->programs[stage],
                                                 &how, err);
}

static bool job_is_second(const struct engine_job *job)
{
    return job->pass && job->pass->steps_before;
}

/* ---- the picture to start from ---- */

/* pixels [height, width, 3] -> ret, `pitch` numbers per latent pixel: the mean of what the encoder says. Others draw from its
 * distribution, with a generator of its own that no seed reaches; its deviation is thousands of times smaller than the noise
 * of any first step. */
static int encode_pixels(struct run *run, float *pixels, float *ret, size_t pitch,
                         struct err *err)
{
    const struct checkpoint *c = run->model->checkpoint;
    size_t channels = (size_t)c->vae.latent_channels;
    size_t said = (size_t)vae_moments(&c->vae); /* per pixel, the mean first */
    double scale = vae_latent_scale(&c->vae, c->family->latent_scale);
    float *moments = run_at(run, run->memory.moments);

    if (run_to_moments(run, pixels, moments, err))
        return -1;
    for (size_t i = 0; i < run->latent_count; i++) {
        size_t pixel = i / channels, channel = i % channels;

        ret[pixel * pitch + channel] =
            (float)((double)moments[pixel * said + channel] * scale);
    }
    return 0;
}

/* For each latent pixel the mask, then the latent. Without a mask, grey is shown and everything is masked. */
static int encode_shown(struct run *run, struct err *err)
{
    size_t channels = (size_t)run->model->checkpoint->vae.latent_channels;
    size_t count = run->latent_count / channels;
    bool has_mask = run->start && run->start->mask;
    size_t pixels = (size_t)run->job->width * (size_t)run->job->height;
    float *picture = run_at(run, run->memory.picture); /* free until it is decoded */
    float *shown = run_at(run, run->memory.shown);
    float *mask = run_at(run, run->memory.latents); /* free until the first step */

    if (has_mask && start_show(run->start, picture, mask, err))
        return -1;
    for (size_t i = 0; !has_mask && i < 3 * pixels; i++)
        picture[i] = 0;
    for (size_t i = 0; i < count; i++)
        shown[i * (1 + channels)] = has_mask ? mask[i] : 1;
    return encode_pixels(run, picture, shown + 1, 1 + channels, err);
}

static int encode_start(struct run *run, struct err *err)
{
    const struct checkpoint *c = run->model->checkpoint;
    const float *drawn = run->job->pass ? run->job->pass->latent : NULL;

    if (run->start && drawn)
        memcpy(run_at(run, run->memory.first), drawn,
               run->latent_count * sizeof(float));
    else if (run->start &&
             encode_pixels(run, run->start->pixels, run_at(run, run->memory.first),
                           (size_t)c->vae.latent_channels, err))
        return -1;
    return c->is_inpainting ? encode_shown(run, err) : 0;
}

/* Where the mask keeps the picture, the latent is the picture's. */
static void put_back(const struct run *run, float *latent)
{
    size_t channels = (size_t)run->model->checkpoint->vae.latent_channels;
    const float *first = run_at(run, run->memory.first);

    for (size_t i = 0; i < run->latent_count; i++) {
        float keep = run->start->keep[i / channels];

        latent[i] = keep * first[i] + (1 - keep) * latent[i];
    }
}

/* x: this picture's noise -> what the walk begins with */
static void begin_at_picture(struct run *run, float *x, double sigma)
{
    size_t channels = (size_t)run->model->checkpoint->vae.latent_channels;
    const float *first = run_at(run, run->memory.first), *keep = run->start->keep;
    enum engine_fill fill = run->job->start.fill;

    for (size_t i = 0; i < run->latent_count; i++) {
        double begin = (double)first[i], noise = (double)x[i];
        double kept = keep ? (double)keep[i / channels] : 1;

        if (fill == ENGINE_FILL_NOISE)
            begin = begin * kept + noise * (1 - kept);
        else if (fill == ENGINE_FILL_NOTHING)
            begin *= kept;
        x[i] = (float)(begin + noise * sigma);
    }
}

/* ---- sample ---- */

/* prediction -> the latent that it denoises x to */
static void apply(const struct run *run, const float *x, double sigma,
                  const float *prediction, float *ret)
{
    struct scaling scaling = schedule_scaling(run->plan.prediction, sigma);

    for (size_t i = 0; i < run->latent_count; i++)
        ret[i] =
            (float)(scaling.skip * (double)x[i] + scaling.out * (double)prediction[i]);
    if (run->start && run->start->keep)
        put_back(run, ret);
}

/* The parts of the prompt, each of its weight, into the first. */
static void guide(const struct run *run, float *prediction, const float *uncond,
                  double scale)
{
    const struct script_row *rows = run->script.rows;
    size_t count = run->latent_count;

    sampler_guide(prediction, uncond, count, scale * rows[0].weight);
    for (int i = 1; i < run->plan.parts; i++)
        sampler_guide_more(prediction, prediction + (size_t)i * count, uncond, count,
                           scale * rows[i].weight);
}

/* x -> what the U-Net reads, a row of the batch like the other */
static void fill_latents(struct run *run, const float *x, double scale)
{
    const struct checkpoint *c = run->model->checkpoint;
    size_t channels = (size_t)c->vae.latent_channels;
    size_t reads = (size_t)unet_latent_channels(c->unet), beside = reads - channels;
    size_t pixels = run->latent_count / channels;
    const float *shown = run_at(run, run->memory.shown);
    float *to = run_at(run, run->memory.latents);

    for (size_t i = 0; i < (size_t)run->plan.size.batch * pixels; i++, to += reads) {
        size_t pixel = i % pixels;

        for (size_t k = 0; k < channels; k++)
            to[k] = (float)(scale * (double)x[pixel * channels + k]);
        if (beside)
            memcpy(to + channels, shown + pixel * beside, beside * sizeof(*to));
    }
}

/* The U-Net on the rows from `row` on: one, or all. */
static int predict(struct run *run, size_t row, float *ret, struct err *err)
{
    const struct checkpoint *c = run->model->checkpoint;
    const struct job_memory *m = &run->memory;
    size_t tokens = (size_t)run->plan.size.chunks * TOKENIZER_CONTEXT;
    size_t act = run->model->engine->backend->act_bytes;
    void **inputs = mem_alloc((size_t)(m->context_count + 4) * sizeof(*inputs));
    int count = 2, result;

    inputs[0] = run_at(run, m->latents); /* all rows are alike */
    inputs[1] = run_at(run, m->t);
    for (int i = 0; i < m->context_count; i++)
        inputs[count++] =
            run_at(run, m->contexts[i] + row * tokens * act *
                                             (size_t)unet_context_channels(c->unet, i));
    if (c->summary)
        inputs[count++] = run_at(
            run, m->label + row * sizeof(float) * (size_t)unet_label_channels(c->unet));
    inputs[count] = run_at(run, m->guide);
    result = run_stage(run, STAGE_STEP, inputs, (void *[]){ret}, err);
    free(inputs);
    return result;
}

static int predict_apart(struct run *run, size_t rows, float *prediction,
                         struct err *err)
{
    size_t count = run->latent_count;
    float *one = run_at(run, run->memory.row);

    for (size_t row = 0; row < rows; row++) {
        if (predict(run, row, one, err))
            return -1;
        memcpy(prediction + row * count, one, count * sizeof(*one));
    }
    return 0;
}

/* AUTOMATIC1111's way to save time where there is little noise: in every second run what the prompt says stands for
 * what the negative one would, and is not driven away from it. */
static bool skips_negative(const struct run *run, double sigma)
{
    return run->plan.skips && run->plan.size.batch > 1 && run->look % 2 == 1 &&
           sigma < run->job->s_min_uncond;
}

/* x [H, W, C] at noise level sigma -> denoised */
static int denoise(void *user, const float *x, double sigma,
                   const struct sampler_denoised *ret, struct err *err)
{
    struct run *run = user;
    const struct job_memory *m = &run->memory;
    struct scaling scaling = schedule_scaling(run->plan.prediction, sigma);
    float *prediction = run_at(run, m->prediction);
    size_t count = run->latent_count;
    float *uncond = prediction + (size_t)run->plan.parts * count;
    bool skips = skips_negative(run, sigma);
    size_t rows = (size_t)run->plan.size.batch - (skips ? 1 : 0);

    run->look++;
    if (run_say(run, run->call++, err))
        return -1;
    fill_latents(run, x, scaling.in);
    *(float *)run_at(run, m->t) =
        (float)(run->plan.dialect == DIALECT_COMFY
                    ? schedule_nearest_t(&run->schedule, sigma)
                    : schedule_t(&run->schedule, sigma));
    if (run->plan.size.apart ? predict_apart(run, rows, prediction, err)
                             : predict(run, 0, prediction, err))
        return -1;
    if (skips)
        memcpy(uncond, prediction, count * sizeof(*uncond));
    if (ret->uncond)
        apply(run, x, sigma, uncond, ret->uncond);
    if (run->plan.size.batch > 1)
        guide(run, prediction, uncond, skips ? 1 : run->plan.guidance);
    apply(run, x, sigma, prediction, ret->guided);
    return 0;
}

static int on_step(void *user, unsigned step, unsigned steps, const float *denoised,
                   struct err *err)
{
    struct run *run = user;

    (void)err;
    if (run->events->on_step)
        run->events->on_step(run->events->user, run->image, (int)step, (int)steps);
    if (step < steps && run->events->wants_preview &&
        run->events->wants_preview(run->events->user, run->image, (int)step,
                                   (int)steps))
        run_show(run, denoised, (int)step, (int)steps);
    return 0;
}

static bool has_timesteps(const struct run *run)
{
    return sampler_has_timesteps(run->plan.sampler) &&
           run->plan.scheduler == SCHEDULER_DDIM_UNIFORM &&
           run->plan.dialect == DIALECT_A1111;
}

/* of one picture */
struct seeds {
    int64_t seed, variation; /* variation -1: none */
};

/* What the starting noise is multiplied by. A variance preserving start has it at sqrt(1 + s^2), which at the top of
 * the schedule is nearly the same. */
static double noise_scale(const struct run *run)
{
    double sigma = run->sigmas[run->first];
    double top = run->schedule.sigma[SCHEDULE_TRAIN_STEPS - 1];
    bool is_full = run->plan.dialect == DIALECT_COMFY
                       ? sigma > top * (1 - 1e-5)
                       : has_timesteps(run) && !run->start;

    return is_full ? sqrt(1 + sigma * sigma) : sigma;
}

/* The noise of the steps: A1111's goes on where the starting noise ended, or with a seed of its own; ComfyUI's is
 * another generator with the same seed. */
static void begin_step_noise(const struct run *run, int64_t seed, struct noise *noise)
{
    if (run->plan.dialect == DIALECT_COMFY)
        noise_init(noise, NOISE_NV, (uint64_t)seed);
    else if (run->job->ensd)
        noise_init(noise, run->plan.rng, (uint64_t)(seed + run->job->ensd));
}

/* The noise that a picture begins as, [H, W, C] of unit variance; `noise` has drawn it. */
static void begin_noise(struct run *run, const struct seeds *seeds, struct noise *noise,
                        float *ret)
{
    size_t channels = (size_t)run->model->checkpoint->vae.latent_channels;
    size_t rows = (size_t)(run->plan.size.height / run->model->checkpoint->vae.scale);
    float *other = run_at(run, run->memory.prediction),
          *room = run_at(run, run->memory.latents);
    struct noise variation;

    noise_init(noise, run->plan.rng, (uint64_t)seeds->seed);
    sampler_noise(noise, channels, ret, run->latent_count, room);
    if (seeds->variation < 0)
        return;
    noise_init(&variation, run->plan.rng, (uint64_t)seeds->variation);
    sampler_noise(&variation, channels, other, run->latent_count, room);
    noise_mix(ret, other, rows, run->latent_count / rows, run->job->variation_strength);
}

static int sample(struct run *run, const struct seeds *seeds, struct err *err)
{
    int64_t seed = seeds->seed;
    float *x = run_at(run, run->memory.x);
    struct noise noise;
    struct sampler_run walk = {.sampler = run->plan.sampler,
                               .options = run->plan.options,
                               .sigmas = run->sigmas + run->first,
                               .steps = run->levels - run->first,
                               .count = run->latent_count,
                               .noise = &noise,
                               .path_seed = (uint64_t)seed,
                               .path_high = run->sigmas[0],
                               .path_kind = run->plan.rng,
                               .channels =
                                   (size_t)run->model->checkpoint->vae.latent_channels,
                               .schedule = &run->schedule,
                               .denoise = denoise,
                               .on_step = on_step,
                               .user = run};
    double scale = noise_scale(run), last = run->sigmas[run->levels];

    tell_phase(run, ENGINE_PHASE_SAMPLE);
    run->call = job_is_second(run->job) ? run->script.steps : 0;
    run->look = 0;
    begin_noise(run, seeds, &noise, x);
    begin_step_noise(run, seed, &noise);
    if (run->start)
        begin_at_picture(run, x, scale);
    else
        for (size_t i = 0; i < walk.count; i++)
            x[i] = (float)((double)x[i] * scale);
    if (sampler_run(&walk, x, err))
        return -1;
    /* the timesteps end above 0, where others leave the latent at the model's own scale */
    for (size_t i = 0; has_timesteps(run) && i < walk.count; i++)
        x[i] = (float)((double)x[i] / sqrt(1 + last * last));
    if (run->start && run->start->keep)
        put_back(run, x);
    return 0;
}

/* ---- decode ---- */

static int decode(struct run *run, struct err *err)
{
    const struct picture_size *size = &run->plan.size;
    const struct checkpoint *c = run->model->checkpoint;
    double scale = vae_latent_scale(&c->vae, c->family->latent_scale);
    float *x = run_at(run, run->memory.x), *picture = run_at(run, run->memory.picture);
    bool is_finite = true; /* a clamp or a ReLU may make a number of what is none */

    tell_phase(run, ENGINE_PHASE_DECODE);
    for (size_t i = 0; i < run->latent_count; i++) {
        is_finite = is_finite && isfinite(x[i]);
        x[i] = (float)((double)x[i] / scale);
    }
    if (is_finite && run_to_pixels(run, x, picture, err))
        return -1;
    if (!is_finite || run_to_bytes(picture, run_at(run, run->memory.rgb),
                                   (size_t)size->width * (size_t)size->height * 3))
        return err_set(err, ERR_INTERNAL,
                       "the picture is not a number: the weights of %s are damaged or "
                       "overflow",
                       c->name);
    return 0;
}

static int hand_out(struct run *run, struct engine_image *image, struct err *err)
{
    struct buf text = {0}, png = {0};
    struct image_text chunk;
    struct err reason = {0};
    struct stop stop = {.is_cancelled = is_cancelled, .user = run};
    int result;

    run_describe(run, image, &text);
    chunk = (struct image_text){"parameters", buf_str(&text)};
    result =
        image_png_write(&(struct image_png){image->rgb, (unsigned)image->width,
                                            (unsigned)image->height, &chunk, 1, &stop},
                        &png, err);
    image->parameters = buf_str(&text);
    image->png = png.data;
    image->png_bytes = png.len;
    if (result == 0 && run->events->on_image &&
        !run->events->on_image(run->events->user, image, &reason))
        result = reason.code ? err_set(err, reason.code, "%s", reason.message)
                             : err_set(err, ERR_CANCELLED, "the job was cancelled");
    buf_release(&text);
    buf_release(&png);
    return result;
}

/* Where a mask kept something, the drawn picture goes back into the one it came from. */
static int deliver(struct run *run, const struct seeds *seeds, struct err *err)
{
    struct engine_image image = {.index = run->image,
                                 .seed = seeds->seed,
                                 .variation_seed = seeds->variation,
                                 .width = run->job->width,
                                 .height = run->job->height,
                                 .rgb = run_at(run, run->memory.rgb)};
    struct image whole = {0};
    int result;

    if (run->start && run->start->mask) {
        if (start_compose(run->start, image.rgb, &whole, err))
            return -1;
        image.width = whole.width;
        image.height = whole.height;
        image.rgb = whole.rgba;
        for (size_t i = 1; i < (size_t)whole.width * (size_t)whole.height; i++)
            memmove(whole.rgba + 3 * i, whole.rgba + 4 * i, 3);
    }
    result = hand_out(run, &image, err);
    image_release(&whole);
    return result;
}

/* ---- the job ---- */

static int map_block(struct run *run, struct err *err)
{
    /* in huge pages: fresh small ones would cost a third of a decode */
    void *block = pages_alloc(run->memory.total);

    if (!block)
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for a picture of %dx%d (%zu bytes): choose a smaller "
                       "one",
                       run->job->width, run->job->height, run->memory.total);
    run->block = block;
    return 0;
}

int64_t run_draw_seed(void)
{
    uint32_t seed = 0;

    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        seed = 0;
    return seed;
}

/* A walk is over: its latent or its picture goes on to the second one, or out. */
static int end_picture(struct run *run, const struct seeds *seeds, struct err *err)
{
    const struct engine_pass *pass = run->job->pass;

    if (pass && pass->on_latent) {
        pass->on_latent(pass->user, run_at(run, run->memory.x));
        return 0;
    }
    if (decode(run, err))
        return -1;
    if (pass && pass->on_picture) {
        pass->on_picture(pass->user, run_at(run, run->memory.rgb));
        return 0;
    }
    return deliver(run, seeds, err);
}

static int draw_images(struct run *run, struct err *err)
{
    const struct engine_job *job = run->job;
    int64_t seed = job->seed >= 0 ? job->seed : run_draw_seed();
    int64_t variation =
        job->variation_seed >= 0 ? job->variation_seed : run_draw_seed();

    if (run_encode(run, err))
        return -1;
    if (run->plan.releases)
        run->model->engine->backend->ops->unload(
            run->model->stages->programs[STAGE_ENCODE]);
    if (encode_start(run, err))
        return -1;
    for (run->image = 0; run->image < job->count; run->image++) {
        bool varies = job->variation_strength > 0;
        struct seeds seeds = {.seed = varies ? seed : seed + run->image,
                              .variation = varies ? variation + run->image : -1};

        if (job->seeds)
            seeds.seed = job->seeds[run->image];
        if (sample(run, &seeds, err) || end_picture(run, &seeds, err))
            return -1;
    }
    return 0;
}

/* Everything that the job needs of the model: its stages, its weights. */
static int take_model(struct run *run, struct err *err)
{
    struct loras *loras;
    uint64_t growth;

    if (loras_open(&loras, run->model, run->job, err))
        return -1;
    if (model_fit(run->model, run->job, &run->plan, loras, &growth, err)) {
        loras_close(loras);
        return -1;
    }
    loras_tell(loras, run->events);
    tell_phase(run, ENGINE_PHASE_ENCODE);
    return model_lay(run->model, loras, run->events, err);
}

static void make_sigmas(struct run *run)
{
    struct schedule_options how = {
        .scheduler = run->plan.scheduler,
        .steps = (unsigned)run->plan.levels,
        .dialect = run->plan.dialect,
        .discards = sampler_discards(run->plan.sampler, run->plan.dialect),
        .has_timesteps = sampler_has_timesteps(run->plan.sampler),
        .rho = run->job->rho,
        .is_sdxl = run->model->checkpoint->family->is_sdxl};

    schedule_init(&run->schedule, SCHEDULE_SD_BETA_START, SCHEDULE_SD_BETA_END);
    if (run->model->checkpoint->ends_in_noise)
        schedule_end_in_noise(&run->schedule);
    run->sigmas = mem_alloc(SCHEDULE_ROOM(how.steps) * sizeof(*run->sigmas));
    run->levels = schedule_sigmas(&run->schedule, &how, run->sigmas);
    if ((unsigned)run->plan.walked < run->levels && run->plan.walked < run->plan.levels)
        run->first = run->levels - (unsigned)run->plan.walked;
}

int engine_generate(struct engine_model *model, const struct engine_job *job,
                    const struct engine_events *events, struct err *err)
{
    static const struct engine_events nothing;
    struct run *run;
    int result = -1;

    if (hires_is_wanted(job))
        return hires_generate(model, job, events ? events : &nothing, err);
    run = mem_zalloc(sizeof(*run));
    run->model = model;
    run->job = job;
    run->events = events ? events : &nothing;
    if (model_take_vae(model, job->vae, err) ||
        job_understand(model, job, &run->plan, err) || take_model(run, err))
        goto out;
    job_memory_lay_out(&run->memory, model, &run->plan);
    run->latent_count = (size_t)(job->width / model->checkpoint->vae.scale) *
                        (size_t)(job->height / model->checkpoint->vae.scale) *
                        (size_t)model->checkpoint->vae.latent_channels;
    make_sigmas(run);
    if (job_is_second(job) && start_from_rgb(&run->start, job->pass->rgb, job, err))
        goto out;
    if (job->start.image.data &&
        start_open(&run->start, job, model->checkpoint->vae.scale, err))
        goto out;
    if (map_block(run, err))
        goto out;
    result = draw_images(run, err);
out:
    start_free(run->start);
    inversions_close(run->inversions);
    pages_free(run->block, run->memory.total);
    job_memory_release(&run->memory);
    script_release(&run->script);
    free(run->sigmas);
    free(run);
    return result;
}
