/* hires: as AUTOMATIC1111's "hires fix". A picture is drawn at the job's size; its latent, or the picture itself, is
 * made larger; then it is walked again from the middle of the schedule at the larger size, with fresh noise of the same
 * seed. Where a prompt changes on the way, the second walk says what the first one said at its end.
 *
 * The two walks are two jobs for generate.c, one after the other with a block of memory each, and one upscaling
 * between; nothing of the first is kept but its latent or its picture. So the peak is the largest of the three. The
 * budget is the whole job's: what one of the three leaves in memory is not there for the next. Each
 * picture goes through both before the next begins, so that it is there early and progress never goes back.
 *
 * What the listeners hear is one job: steps count through, a picture has its own number, LoRAs are told once.
 *
 * The second walk's steps are all walked: of a schedule of steps / strength levels the last ones. */
#include "engine/hires.h"

#include "base/mem.h"
#include "engine/run.h"
#include "engine/upscale/upscale.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum how { HOW_LATENT, HOW_LATENT_NEAREST, HOW_LANCZOS, HOW_NEAREST, HOW_NETWORK };

struct hires {
    const struct checkpoint *checkpoint;
    struct engine_model *model; /* NULL where the job is only looked at */
    const struct engine_job *job;
    const struct engine_events *events;
    enum how how;
    struct engine_upscaler *upscaler; /* HOW_NETWORK, once it is open */
    struct engine_job jobs[2];
    struct engine_pass passes[2];
    int now;              /* which of the two is walked */
    int image;            /* of the whole job */
    float *latent;        /* the first one's, then the larger one's */
    struct image picture; /* the same in pixels */
    bool is_told;         /* which LoRAs there are */
    uint64_t resident;    /* when the job began */
};

bool hires_is_wanted(const struct engine_job *job)
{
    return !job->pass &&
           (job->hires.scale > 0 || job->hires.width > 0 || job->hires.height > 0);
}

/* ---- understanding ---- */

static const struct {
    const char *name, *label;
    enum how how;
} hows[] = {{"latent", "Latent", HOW_LATENT},
            {"latent-nearest", "Latent (nearest)", HOW_LATENT_NEAREST},
            {"lanczos", "Lanczos", HOW_LANCZOS},
            {"nearest", "Nearest", HOW_NEAREST}};

static void understand_how(struct hires *h, const char **ret_label)
{
    const char *name = h->job->hires.upscaler ? h->job->hires.upscaler : "latent";

    h->how = HOW_NETWORK;
    *ret_label = name;
    for (size_t i = 0; i < sizeof(hows) / sizeof(*hows); i++)
        if (strcasecmp(name, hows[i].name) == 0 ||
            strcasecmp(name, hows[i].label) == 0) {
            h->how = hows[i].how;
            *ret_label = hows[i].label;
        }
}

static int rounded(double side, int scale)
{
    return (int)fmin(side / scale + 1e-6, ENGINE_MAX_SIZE) * scale;
}

/* By the scale, or by what is given of width and height. The proportions stay, but for what rounding takes. */
static int understand_size(const struct hires *h, int *ret_width, int *ret_height,
                           struct err *err)
{
    const struct engine_hires *o = &h->job->hires;
    int width = h->job->width, height = h->job->height;
    int scale = h->checkpoint->vae.scale;
    double by_width = (double)o->width / width, by_height = (double)o->height / height;
    double times = o->scale > 0 ? o->scale : by_width > 0 ? by_width : by_height;

    *ret_width = o->width && !(o->scale > 0) ? o->width : rounded(width * times, scale);
    *ret_height =
        o->height && !(o->scale > 0) ? o->height : rounded(height * times, scale);
    if (fabs((double)*ret_width * height - (double)*ret_height * width) >
        scale * (double)(width > height ? width : height))
        return err_set_param(err, ERR_INVALID, "hires",
                             "hires to %d x %d is of another shape than %d x %d: say "
                             "one side, or a scale",
                             *ret_width, *ret_height, width, height);
    return 0;
}

static int understand(struct hires *h, struct err *err)
{
    const struct engine_hires *o = &h->job->hires;
    struct engine_job *one = &h->jobs[0], *two = &h->jobs[1];
    static const uint8_t some_rgb[1]; /* that there will be one */
    const char *label;

    if (h->job->start.image.data)
        return err_set_param(err, ERR_INVALID, "hires",
                             "hires is for pictures that begin with noise");
    if (!(o->strength >= 0 && o->strength <= 1) || o->steps < 0 ||
        o->steps > ENGINE_MAX_STEPS || !(o->scale >= 0 && o->scale <= 8))
        return err_set_param(
            err, ERR_INVALID, "hires",
            "hires of strength %g, %d steps and scale %g: strength may "
            "be 0 to 1, steps up to %d, the scale up to 8",
            o->strength, o->steps, o->scale, ENGINE_MAX_STEPS);
    understand_how(h, &label);
    *one = *two = *h->job;
    one->hires = two->hires = (struct engine_hires){0};
    one->count = two->count = 1;
    one->seeds = two->seeds = NULL;
    if (understand_size(h, &two->width, &two->height, err))
        return -1;
    two->steps = o->steps ? o->steps : h->job->steps;
    two->start.strength = o->strength;
    for (int i = 0; i < 2; i++) {
        h->passes[i] =
            (struct engine_pass){.whole = h->job, .upscaler = label, .user = h};
        h->jobs[i].pass = &h->passes[i];
    }
    h->passes[1].steps_before = h->job->steps;
    h->passes[1].rgb = h->how >= HOW_LANCZOS ? some_rgb : NULL;
    return 0;
}

int hires_check(const struct engine_model *model, const struct engine_job *job,
                struct err *err)
{
    struct hires h = {.checkpoint = model->checkpoint, .job = job};
    struct plan_of_job plan;

    if (!hires_is_wanted(job))
        return 0;
    if (understand(&h, err))
        return -1;
    if (job_understand(model, &h.jobs[1], &plan, err) == 0)
        return 0;
    if (err)
        snprintf(err->param, sizeof(err->param), "hires");
    return err_wrap(err, "hires");
}

static int open_upscaler(struct hires *h, struct err *err)
{
    if (h->how != HOW_NETWORK)
        return 0;
    return engine_upscaler_open(&h->upscaler, h->model->engine, h->job->hires.upscaler,
                                err);
}

static struct upscale_to target_of(const struct hires *h)
{
    return (struct upscale_to){.size = {h->jobs[1].width, h->jobs[1].height},
                               .is_nearest = h->how == HOW_NEAREST};
}

/* ---- memory ---- */

/* The picture that the second walk begins with, beside what that counts itself. */
static uint64_t held_bytes(const struct hires *h)
{
    return h->how >= HOW_LANCZOS
               ? (uint64_t)h->jobs[1].width * (uint64_t)h->jobs[1].height * 4
               : 0;
}

/* What a walk before it packed is resident by now, and comes out of the same budget. */
static void give_budget(struct hires *h, int walk)
{
    uint64_t whole = h->job->budget_bytes + h->resident;
    uint64_t taken = model_resident_bytes(h->model) + (walk ? held_bytes(h) : 0);

    if (h->job->budget_bytes)
        h->jobs[walk].budget_bytes = whole > taken ? whole - taken : 1;
}

int hires_estimate(struct engine_model *model, const struct engine_job *job,
                   struct engine_estimate *ret_estimate, struct err *err)
{
    struct hires h = {.checkpoint = model->checkpoint, .model = model, .job = job};
    struct engine_estimate one, two;
    struct upscale_to to;
    uint64_t between = 0, packed;
    int rc = -1;

    if (engine_job_check(model, job, err) || understand(&h, err) ||
        open_upscaler(&h, err))
        goto out;
    h.resident = model_resident_bytes(model);
    give_budget(&h, 0);
    give_budget(&h, 1);
    if (engine_estimate(model, &h.jobs[0], &one, err))
        goto out;
    packed = model_missing_bytes(model);
    if (engine_estimate(model, &h.jobs[1], &two, err))
        goto out;
    to = target_of(&h);
    if (h.how >= HOW_LANCZOS) {
        if (upscale_bytes(h.upscaler, (struct upscale_size){job->width, job->height},
                          &to, &between, err))
            goto out;
        two.peak_bytes += held_bytes(&h);
        between += packed;
    }
    *ret_estimate = two;
    if (one.peak_bytes > two.peak_bytes)
        ret_estimate->peak_bytes = one.peak_bytes;
    if (two.resident_bytes + between > ret_estimate->peak_bytes)
        ret_estimate->peak_bytes = two.resident_bytes + between;
    rc = 0;
out:
    engine_upscaler_close(h.upscaler);
    return rc;
}

/* ---- from the small one to the large one ---- */

static size_t channels_of(const struct hires *h)
{
    return (size_t)h->checkpoint->vae.latent_channels;
}

static int latent_side(const struct hires *h, int side)
{
    return side / h->checkpoint->vae.scale;
}

/* Where pixel i of `to` lies among `from` pixels, as torch.nn.functional.interpolate has it. */
static double place(int i, int from, int to, bool is_nearest)
{
    double at = is_nearest ? floor(i * (double)from / to) : (i + 0.5) * from / to - 0.5;

    return at < 0 ? 0 : at > from - 1 ? from - 1 : at;
}

static float *enlarge_latent(const struct hires *h)
{
    const struct engine_job *one = &h->jobs[0], *two = &h->jobs[1];
    int wide = latent_side(h, one->width), high = latent_side(h, one->height);
    int to_wide = latent_side(h, two->width), to_high = latent_side(h, two->height);
    bool is_nearest = h->how == HOW_LATENT_NEAREST;
    size_t channels = channels_of(h);
    float *ret = mem_alloc((size_t)to_wide * (size_t)to_high * channels * sizeof(*ret));
    float *to = ret;

    for (int y = 0; y < to_high; y++)
        for (int x = 0; x < to_wide; x++) {
            double v = place(y, high, to_high, is_nearest);
            double u = place(x, wide, to_wide, is_nearest);
            int top = (int)v, left = (int)u;
            int bottom = top + 1 < high ? top + 1 : top;
            int right = left + 1 < wide ? left + 1 : left;

            for (size_t c = 0; c < channels; c++) {
                const float *from = h->latent + c;
                double a = (double)from[(size_t)(top * wide + left) * channels];
                double b = (double)from[(size_t)(top * wide + right) * channels];
                double d = (double)from[(size_t)(bottom * wide + left) * channels];
                double e = (double)from[(size_t)(bottom * wide + right) * channels];

                a += (b - a) * (u - left);
                d += (e - d) * (u - left);
                *to++ = (float)(a + (d - a) * (v - top));
            }
        }
    return ret;
}

static int enlarge(struct hires *h, struct err *err)
{
    const struct engine_events quiet = {.is_cancelled = h->events->is_cancelled,
                                        .user = h->events->user};
    const struct upscale_to to = target_of(h);
    float *larger;

    if (h->events->on_phase)
        h->events->on_phase(h->events->user, ENGINE_PHASE_UPSCALE, h->image);
    if (h->how <= HOW_LATENT_NEAREST) {
        larger = enlarge_latent(h);
        free(h->latent);
        h->passes[1].latent = h->latent = larger;
        return 0;
    }
    if (upscale_image(h->upscaler, &h->picture, &to, &quiet, err))
        return -1;
    for (size_t i = 1; i < (size_t)to.size.width * (size_t)to.size.height; i++)
        memmove(h->picture.rgba + 3 * i, h->picture.rgba + 4 * i, 3);
    h->passes[1].rgb = h->picture.rgba;
    return 0;
}

/* ---- one job to those who listen ---- */

static void on_latent(void *user, const float *latent)
{
    struct hires *h = user;
    size_t count = (size_t)latent_side(h, h->job->width) *
                   (size_t)latent_side(h, h->job->height) * channels_of(h);

    h->latent = mem_alloc(count * sizeof(*latent));
    memcpy(h->latent, latent, count * sizeof(*latent));
}

static void on_picture(void *user, const uint8_t *rgb)
{
    struct hires *h = user;
    size_t count = (size_t)h->job->width * (size_t)h->job->height;

    h->picture =
        (struct image){h->job->width, h->job->height, mem_try_zalloc(count, 4), false};
    for (size_t i = 0; h->picture.rgba && i < count; i++) {
        memcpy(h->picture.rgba + 4 * i, rgb + 3 * i, 3);
        h->picture.rgba[4 * i + 3] = 255;
    }
}

static void on_lora(void *user, const struct engine_lora *lora)
{
    struct hires *h = user;

    if (!h->is_told && h->events->on_lora)
        h->events->on_lora(h->events->user, lora);
}

static void on_phase(void *user, enum engine_phase phase, int image)
{
    struct hires *h = user;

    (void)image;
    h->is_told |= phase == ENGINE_PHASE_SAMPLE;
    if (h->events->on_phase && (h->now == 0 || phase != ENGINE_PHASE_ENCODE))
        h->events->on_phase(h->events->user, phase, h->image);
}

static int step_of(const struct hires *h, int step)
{
    return h->now ? h->jobs[0].steps + step : step;
}

static int all_steps(const struct hires *h)
{
    return h->jobs[0].steps + h->jobs[1].steps;
}

static void on_step(void *user, int image, int step, int steps)
{
    struct hires *h = user;

    (void)image;
    (void)steps;
    if (h->events->on_step)
        h->events->on_step(h->events->user, h->image, step_of(h, step), all_steps(h));
}

static bool wants_preview(void *user, int image, int step, int steps)
{
    struct hires *h = user;

    (void)image;
    (void)steps;
    return h->events->wants_preview && h->events->on_preview &&
           h->events->wants_preview(h->events->user, h->image, step_of(h, step),
                                    all_steps(h));
}

static void on_preview(void *user, const struct engine_preview *preview)
{
    struct hires *h = user;
    struct engine_preview own = *preview;

    own.image = h->image;
    own.step = step_of(h, preview->step);
    own.steps = all_steps(h);
    h->events->on_preview(h->events->user, &own);
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct hires *h = user;
    struct engine_image own = *image;

    own.index = h->image;
    return !h->events->on_image || h->events->on_image(h->events->user, &own, err);
}

static bool is_cancelled(void *user)
{
    struct hires *h = user;

    return h->events->is_cancelled && h->events->is_cancelled(h->events->user);
}

/* ---- the job ---- */

static int one_image(struct hires *h, struct err *err)
{
    const struct engine_events events = {.on_lora = on_lora,
                                         .on_phase = on_phase,
                                         .on_step = on_step,
                                         .wants_preview = wants_preview,
                                         .on_preview = on_preview,
                                         .on_image = on_image,
                                         .is_cancelled = is_cancelled,
                                         .user = h};
    int rc;

    h->now = 0;
    give_budget(h, 0);
    if (engine_generate(h->model, &h->jobs[0], &events, err))
        return -1;
    if (!h->latent && !h->picture.rgba)
        return err_set(err, ERR_NO_MEMORY, "no memory for a picture of %d x %d pixels",
                       h->job->width, h->job->height);
    h->now = 1;
    give_budget(h, 1);
    rc = enlarge(h, err) || engine_generate(h->model, &h->jobs[1], &events, err) ? -1
                                                                                 : 0;
    free(h->latent);
    h->latent = NULL;
    image_release(&h->picture);
    return rc;
}

int hires_generate(struct engine_model *model, const struct engine_job *job,
                   const struct engine_events *events, struct err *err)
{
    struct hires h = {
        .checkpoint = model->checkpoint, .model = model, .job = job, .events = events};
    int64_t seed = job->seed >= 0 ? job->seed : run_draw_seed();
    int64_t variation =
        job->variation_seed >= 0 ? job->variation_seed : run_draw_seed();
    bool varies = job->variation_strength > 0;
    int rc = 0;

    if (engine_job_check(model, job, err) || understand(&h, err) ||
        open_upscaler(&h, err))
        return -1;
    h.resident = model_resident_bytes(model);
    if (h.how <= HOW_LATENT_NEAREST)
        h.passes[0].on_latent = on_latent;
    else
        h.passes[0].on_picture = on_picture;
    for (h.image = 0; rc == 0 && h.image < job->count; h.image++) {
        for (int i = 0; i < 2; i++) {
            h.jobs[i].seed = job->seeds ? job->seeds[h.image]
                             : varies   ? seed
                                        : seed + h.image;
            h.jobs[i].variation_seed = variation + h.image;
        }
        rc = one_image(&h, err);
    }
    engine_upscaler_close(h.upscaler);
    return rc;
}
