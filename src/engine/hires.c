/* hires: as AUTOMATIC1111's "hires fix". A picture is drawn at the job's size; its latent, or the picture itself, is
 * made larger; then it is walked again from the middle of the schedule at the larger size, with fresh noise of the same
 * seed. Where a prompt changes on the way, the second walk says what the first one said at its end.
 *
 * The two walks are two jobs for generate.c, one after the other with a block of memory each, and one upscaling
 * between; nothing of the first is kept but its latent or its picture. So the peak is the largest of the three. The
 * budget is the whole job's: what one of the three leaves in memory is not there for the next. Each
 * picture goes through both before the next begins, so that it is there early and progress never goes back.
 *
 * What the listeners hear is one job: steps count through, a picture has its own number, LoRAs and textual inversions are told once.
 *
 * To another shape the picture is made as large as covers it, and what is too much of it is left out at both sides. Where
 * it goes on at its other side, the latent's interpolation does, too, and a picture gets a margin of what lies there.
 *
 * The second walk's steps are all walked: of a schedule of steps / strength levels the last ones. */
#include "engine/hires.h"

#include "base/mem.h"
#include "engine/run.h"
#include "engine/upscale/upscale.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum { MARGIN = 32 }; /* pixels, at least; as far as a network's tiles overlap */

enum how { HOW_LATENT, HOW_LATENT_NEAREST, HOW_LANCZOS, HOW_NEAREST, HOW_NETWORK };

struct hires {
    const struct checkpoint *checkpoint;
    struct engine_model *model; /* NULL where the job is only looked at */
    const struct engine_job *job;
    const struct engine_events *events;
    enum how how;
    struct engine_upscaler *upscaler; /* HOW_NETWORK, once it is open */
    struct engine_job jobs[2];
    struct upscale_size cover;  /* what the small picture becomes */
    struct upscale_size margin; /* at each of its sides, before that */
    struct engine_pass passes[2];
    int now;              /* which of the two is walked */
    int image;            /* of the whole job */
    float *latent;        /* the first one's, then the larger one's */
    struct image picture; /* the same in pixels */
    bool is_told;         /* which LoRAs and textual inversions there are */
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

/* Before the upscaling there are so many pixels of the other side, a number that becomes a whole one. */
static int margin_of(int from, int to)
{
    int a = from, b = to;

    while (b) {
        int rest = a % b;

        a = b;
        b = rest;
    }
    from /= a;
    return (MARGIN + from - 1) / from * from;
}

/* By the scale, or by what is given of width and height: by one of them the proportions stay, by both the picture
 * covers them. */
static void understand_size(struct hires *h, int *ret_width, int *ret_height)
{
    const struct engine_hires *o = &h->job->hires;
    int width = h->job->width, height = h->job->height;
    int scale = h->checkpoint->vae.scale;
    double by_width = (double)o->width / width, by_height = (double)o->height / height;
    double times = o->scale > 0 ? o->scale : fmax(by_width, by_height);

    h->cover = (struct upscale_size){rounded(width * times, scale),
                                     rounded(height * times, scale)};
    *ret_width = o->width && !(o->scale > 0) ? o->width : h->cover.width;
    *ret_height = o->height && !(o->scale > 0) ? o->height : h->cover.height;
    if (h->cover.width < *ret_width)
        h->cover.width = *ret_width;
    if (h->cover.height < *ret_height)
        h->cover.height = *ret_height;
}

static void understand_margin(struct hires *h)
{
    const struct engine_job *job = h->job;

    if (h->how < HOW_LANCZOS)
        return;
    if (job->seamless & ENGINE_SEAMLESS_X)
        h->margin.width = margin_of(job->width, h->cover.width);
    if (job->seamless & ENGINE_SEAMLESS_Y)
        h->margin.height = margin_of(job->height, h->cover.height);
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
    understand_size(h, &two->width, &two->height);
    understand_margin(h);
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

/* the small picture with its margin */
static struct upscale_size framed_size(const struct hires *h)
{
    return (struct upscale_size){h->job->width + 2 * h->margin.width,
                                 h->job->height + 2 * h->margin.height};
}

/* what the margin becomes */
static struct upscale_size larger_margin(const struct hires *h)
{
    return (struct upscale_size){h->margin.width * h->cover.width / h->job->width,
                                 h->margin.height * h->cover.height / h->job->height};
}

static struct upscale_to target_of(const struct hires *h)
{
    struct upscale_size margin = larger_margin(h);

    return (struct upscale_to){.size = {h->cover.width + 2 * margin.width,
                                        h->cover.height + 2 * margin.height},
                               .is_nearest = h->how == HOW_NEAREST};
}

/* What is left out of what covers the second walk's size, above and on the left. */
static struct upscale_size left_out(const struct hires *h)
{
    int scale = h->checkpoint->vae.scale;

    return (struct upscale_size){
        (h->cover.width - h->jobs[1].width) / scale / 2 * scale,
        (h->cover.height - h->jobs[1].height) / scale / 2 * scale};
}

/* ---- memory ---- */

/* The picture that the second walk begins with, beside what that counts itself. */
static uint64_t held_bytes(const struct hires *h)
{
    struct upscale_size size = target_of(h).size;

    return h->how >= HOW_LANCZOS ? (uint64_t)size.width * (uint64_t)size.height * 4 : 0;
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
    if (model_estimate(model, &h.jobs[0], &one, err))
        goto out;
    packed = model_missing_bytes(model);
    if (model_estimate(model, &h.jobs[1], &two, err))
        goto out;
    to = target_of(&h);
    if (h.how >= HOW_LANCZOS) {
        if (upscale_bytes(h.upscaler, framed_size(&h), &to, &between, err))
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

/* Pixel i of `to` among `from` pixels, as torch.nn.functional.interpolate has it: between `before` and `after`. */
struct place {
    int before, after;
    double part; /* of `after` */
};

static struct place place(int i, int from, int to, bool is_nearest, bool wraps)
{
    double at = is_nearest ? floor(i * (double)from / to) : (i + 0.5) * from / to - 0.5;
    int before = (int)floor(at);
    struct place p = {before, before + 1, at - before};

    if (wraps)
        return (struct place){(before + from) % from, (before + 1) % from, p.part};
    if (before < 0)
        return (struct place){0};
    if (p.after >= from)
        p.after = from - 1;
    return p;
}

static float *enlarge_latent(const struct hires *h)
{
    const struct engine_job *one = &h->jobs[0], *two = &h->jobs[1];
    int wide = latent_side(h, one->width), high = latent_side(h, one->height);
    int cover_wide = latent_side(h, h->cover.width);
    int cover_high = latent_side(h, h->cover.height);
    int to_wide = latent_side(h, two->width), to_high = latent_side(h, two->height);
    struct upscale_size out = left_out(h);
    bool is_nearest = h->how == HOW_LATENT_NEAREST;
    size_t channels = channels_of(h);
    float *ret = mem_alloc((size_t)to_wide * (size_t)to_high * channels * sizeof(*ret));
    float *to = ret;

    for (int y = 0; y < to_high; y++)
        for (int x = 0; x < to_wide; x++) {
            struct place v = place(y + latent_side(h, out.height), high, cover_high,
                                   is_nearest, one->seamless & ENGINE_SEAMLESS_Y);
            struct place u = place(x + latent_side(h, out.width), wide, cover_wide,
                                   is_nearest, one->seamless & ENGINE_SEAMLESS_X);

            for (size_t c = 0; c < channels; c++) {
                const float *from = h->latent + c;
                double a =
                    (double)from[(size_t)(v.before * wide + u.before) * channels];
                double b = (double)from[(size_t)(v.before * wide + u.after) * channels];
                double d = (double)from[(size_t)(v.after * wide + u.before) * channels];
                double e = (double)from[(size_t)(v.after * wide + u.after) * channels];

                a += (b - a) * u.part;
                d += (e - d) * u.part;
                *to++ = (float)(a + (d - a) * v.part);
            }
        }
    return ret;
}

/* The part of the enlarged picture that is walked again, without its fourth channel: from its begin on, over itself. */
static void crop(struct hires *h, struct upscale_size size)
{
    struct upscale_size margin = larger_margin(h), out = left_out(h);
    const struct engine_job *two = &h->jobs[1];
    uint8_t *to = h->picture.rgba;

    for (int y = 0; y < two->height; y++)
        for (int x = 0; x < two->width; x++, to += 3) {
            int64_t row = y + out.height + margin.height;
            int64_t column = x + out.width + margin.width;

            memmove(to, h->picture.rgba + 4 * (row * size.width + column), 3);
        }
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
    crop(h, to.size);
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
    struct upscale_size size = framed_size(h);
    int wide = h->job->width, high = h->job->height;
    uint8_t *to = mem_try_zalloc((size_t)size.width * (size_t)size.height, 4);

    h->picture = (struct image){size.width, size.height, to, false};
    for (int y = 0; to && y < size.height; y++)
        for (int x = 0; x < size.width; x++, to += 4) {
            int row = (y + high - h->margin.height % high) % high;
            int column = (x + wide - h->margin.width % wide) % wide;

            memcpy(to, rgb + 3 * ((size_t)row * (size_t)wide + (size_t)column), 3);
            to[3] = 255;
        }
}

static void on_lora(void *user, const struct engine_lora *lora)
{
    struct hires *h = user;

    if (!h->is_told && h->events->on_lora)
        h->events->on_lora(h->events->user, lora);
}

static void on_embedding(void *user, const struct engine_embedding *embedding)
{
    struct hires *h = user;

    if (!h->is_told && h->events->on_embedding)
        h->events->on_embedding(h->events->user, embedding);
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
                                         .on_embedding = on_embedding,
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
