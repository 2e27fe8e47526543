/* memory: how much a job needs, and in which way it is drawn when that is too much.
 *
 * A job's memory is the arena of its largest stage and the buffers between the stages, laid out here as offsets into one block,
 * so that an estimate is a sum of numbers that are known. Where the caller has a budget, the first way of these that keeps to
 * it is taken:
 *
 *   whole      all rows of the guidance in one batch, the VAE in one piece
 *   apart      one row after the other: the same picture but for the rounding of other kernels. A job that leaves the
 *              negative prompt out of some runs is always drawn so
 *   released   the text encoder's weights leave memory when the prompts are read, and are packed again for the next job
 *   tiles      the VAE in tiles of 64 latent pixels that overlap by a quarter; its norms then see one tile each, so that
 *              colours may differ a little
 *   small      tiles of 32
 *
 * Exact ones first, and each has what those before it have: they cost little (two passes of half a batch; packing an eighth of
 * the weights), and a way that is not needed fits earlier. */
#include "engine/hires.h"
#include "engine/loras.h"
#include "engine/model.h"
#include "engine/start.h"
#include "engine/text/tokenizer.h"
#include "engine/vaes.h"

#include "base/mem.h"
#include "base/pages.h"

#include <string.h>

/* ---- where everything lies ---- */

static size_t take(size_t *total, size_t bytes)
{
    size_t at = *total;

    *total += (bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
    return at;
}

/* for whichever way through the VAE takes more */
static void lay_out_tiles(struct job_memory *m, const struct checkpoint *c,
                          const struct picture_size *size)
{
    struct picture_size tile = checkpoint_tile_size(c, size);
    size_t scale = (size_t)c->vae.scale;
    size_t rows = (size_t)tile.height, columns = (size_t)tile.width;
    size_t pixels = rows * columns * 3;
    size_t moments = rows / scale * (columns / scale) * (size_t)vae_moments(&c->vae);
    size_t most = (pixels > moments ? pixels : moments) * sizeof(float);

    m->tile_in = take(&m->total, most);
    m->tile_out = take(&m->total, most);
    m->strip = take(&m->total, rows * (size_t)size->width * 3 * sizeof(float));
}

void job_memory_lay_out(struct job_memory *ret_memory, const struct engine_model *model,
                        const struct plan_of_job *plan)
{
    const struct checkpoint *c = model->checkpoint;
    const struct stages *stages = model->stages;
    const struct picture_size *size = &stages->size;
    size_t act = model->engine->backend->act_bytes;
    size_t batch = (size_t)size->batch;
    size_t tokens = (size_t)size->chunks * TOKENIZER_CONTEXT;
    size_t hidden = tokens * (size_t)c->text_width * sizeof(float);
    size_t rows = (size_t)size->vectors * (size_t)c->text_width * sizeof(float);
    size_t pixels = (size_t)size->width * (size_t)size->height, arena = 0;
    size_t latent = pixels / (size_t)(c->vae.scale * c->vae.scale) *
                    (size_t)c->vae.latent_channels * sizeof(float);
    struct job_memory m = {.context_count = unet_context_count(c->unet)};

    for (int i = 0; i < STAGE_COUNT; i++)
        if (stages->programs[i] && stages->programs[i]->arena_bytes > arena)
            arena = stages->programs[i]->arena_bytes;
    /* what is there when the prompts are read comes first, so that only this is touched then */
    m.ids = take(&m.total,
                 (size_t)c->family->text_count * batch * tokens * sizeof(int32_t));
    m.rows = take(&m.total, rows);
    m.hidden = take(&m.total, batch * hidden);
    m.texts = take(&m.total, (size_t)plan->kept_texts * hidden);
    m.contexts = mem_alloc((size_t)(m.context_count + 1) * sizeof(*m.contexts));
    for (int i = 0; i < m.context_count; i++)
        m.contexts[i] = take(&m.total, batch * tokens * act *
                                           (size_t)unet_context_channels(c->unet, i));
    if (c->summary) {
        m.states =
            take(&m.total, batch * tokens * (size_t)c->summary->width * sizeof(float));
        m.labels =
            take(&m.total, batch * (size_t)unet_label_width(c->unet) * sizeof(float));
        m.summaries =
            take(&m.total, (size_t)plan->kept_texts *
                               (size_t)c->summary->summary_width * sizeof(float));
        m.label = take(&m.total,
                       batch * (size_t)unet_label_channels(c->unet) * sizeof(float));
    }
    m.arena = take(&m.total, arena);
    m.guide = take(&m.total, (size_t)unet_guide_width(c->unet) * sizeof(float));
    m.latents = take(&m.total, batch * latent / (size_t)c->vae.latent_channels *
                                   (size_t)unet_latent_channels(c->unet));
    if (c->is_inpainting)
        m.shown = take(&m.total, latent + latent / (size_t)c->vae.latent_channels);
    m.prediction = take(&m.total, batch * latent);
    if (size->apart)
        m.row = take(&m.total, latent);
    m.x = take(&m.total, latent);
    m.t = take(&m.total, sizeof(float));
    m.picture = take(&m.total, pixels * 3 * sizeof(float));
    m.rgb = take(&m.total, pixels * 3);
    if (size->starts || plan->begins)
        m.first = take(&m.total, latent);
    if (size->starts)
        m.moments = take(&m.total, latent / (size_t)c->vae.latent_channels *
                                       (size_t)vae_moments(&c->vae));
    if (size->tile)
        lay_out_tiles(&m, c, size);
    /* a PNG is never much larger than its pixels, and its buffer grows by doubling */
    m.beside =
        sampler_bytes(plan->sampler, latent / sizeof(float)) + 2 * 3 * pixels + rows;
    *ret_memory = m;
}

void job_memory_release(struct job_memory *memory)
{
    free(memory->contexts);
    memory->contexts = NULL;
}

/* ---- ways to draw ---- */

static const struct {
    const char *name;
    bool is_apart, releases;
    int tile; /* latent pixels; 0: the VAE in one piece */
} ways[] = {{"whole", false, false, 0},
            {"apart", true, false, 0},
            {"released", true, true, 0},
            {"tiles", true, true, 64},
            {"small_tiles", true, true, 32}};

enum { WAYS = sizeof(ways) / sizeof(ways[0]), FIRST_TILES = 3 };

/* Is it another way than the one before, for this picture? Tiles know nothing of an opposite side. */
static bool is_possible(const struct engine_model *model,
                        const struct plan_of_job *plan, int way)
{
    int scale = model->checkpoint->vae.scale, tile = ways[way].tile;

    return !tile || (!plan->size.seamless && (plan->size.width > tile * scale ||
                                              plan->size.height > tile * scale));
}

static void take_way(const struct engine_model *model, struct plan_of_job *plan,
                     int way)
{
    plan->size.apart = (ways[way].is_apart || plan->skips) && plan->size.batch > 1;
    plan->size.tile = ways[way].tile;
    plan->releases = ways[way].releases;
    plan->way = ways[way].name;
    if (plan->tiles && !plan->size.tile && is_possible(model, plan, FIRST_TILES)) {
        plan->size.tile = ways[FIRST_TILES].tile;
        plan->way = ways[FIRST_TILES].name;
    }
}

/* Bytes beyond what is resident, at most, as the stages are compiled now. What they took for themselves (kernels, some 20 MB at
 * SD 1.5's size) is there by the time that anybody reads this. start: for the picture to begin with. */
static uint64_t growth(const struct engine_model *model, const struct plan_of_job *plan,
                       const struct loras *loras, uint64_t start)
{
    const struct program *encode = model->stages->programs[STAGE_ENCODE];
    const struct program *context = model->stages->programs[STAGE_CONTEXT];
    uint64_t drawing, reading, laying = loras_lay_bytes(model, loras), bytes;
    struct job_memory memory;

    job_memory_lay_out(&memory, model, plan);
    drawing = memory.total + memory.beside + start;
    if (plan->releases) { /* the block fills up after they have gone; the prompts are read before that */
        reading = encode->arena_bytes > context->arena_bytes ? encode->arena_bytes
                                                             : context->arena_bytes;
        reading = pages_touched(memory.arena + reading, memory.total) + start;
        drawing = drawing > encode->weight_bytes ? drawing - encode->weight_bytes : 0;
        drawing = drawing > reading ? drawing : reading;
    }
    job_memory_release(&memory);
    bytes = model_missing_bytes(model);
    /* LoRAs are laid before the job's own memory is there */
    return bytes + (drawing > laying ? drawing : laying);
}

int model_fit(struct engine_model *model, const struct engine_job *job,
              struct plan_of_job *plan, const struct loras *loras, uint64_t *ret_growth,
              struct err *err)
{
    uint64_t start = 0, least = UINT64_MAX;
    int best = 0;

    if (job->pass && job->pass->rgb)
        start = start_rgb_bytes(job);
    else if (job->start.image.data && start_bytes(job, &start, err))
        return -1;
    for (int way = 0; way < WAYS; way++) {
        if (!is_possible(model, plan, way))
            continue;
        take_way(model, plan, way);
        if (model_compile(model, &plan->size, err))
            return -1;
        *ret_growth = growth(model, plan, loras, start);
        if (!job->budget_bytes || *ret_growth <= job->budget_bytes)
            return 0;
        if (*ret_growth < least) {
            least = *ret_growth;
            best = way;
        }
    }
    /* not always the last one: tiles need room of their own */
    take_way(model, plan, best);
    *ret_growth = least;
    if (model_compile(model, &plan->size, err))
        return -1;
    return err_set(
        err, ERR_NO_MEMORY,
        "a picture of %dx%d takes at least %.0f MB beside the model, in small "
        "pieces, and %.0f MB are free for it: choose a smaller one",
        job->width, job->height, (double)*ret_growth / 1e6,
        (double)job->budget_bytes / 1e6);
}

int model_estimate(struct engine_model *model, const struct engine_job *job,
                   struct engine_estimate *ret_estimate, struct err *err)
{
    struct plan_of_job plan;
    struct loras *loras;
    uint64_t bytes = 0;
    struct err why = {0};
    int result;

    if (hires_is_wanted(job))
        return hires_estimate(model, job, ret_estimate, err);
    if (job_understand(model, job, &plan, err) || loras_open(&loras, model, job, err))
        return -1;
    result = model_fit(model, job, &plan, loras, &bytes, &why);
    loras_close(loras);
    if (result && why.code != ERR_NO_MEMORY) {
        if (err)
            *err = why;
        return -1;
    }
    ret_estimate->resident_bytes = model_resident_bytes(model);
    ret_estimate->peak_bytes = ret_estimate->resident_bytes + bytes;
    ret_estimate->way = plan.way;
    return 0;
}

int engine_estimate(struct engine_model *model, const struct engine_job *job,
                    struct engine_estimate *ret_estimate, struct err *err)
{
    struct borrowed_vae borrowed;
    uint64_t now = model_resident_bytes(model);
    int result = model_borrow_vae(model, job->vae, &borrowed, err);

    if (!result)
        result = model_estimate(model, job, ret_estimate, err);
    model_return_vae(model, &borrowed);
    if (!result) { /* what is packed of the VAE before leaves when the job is drawn */
        ret_estimate->resident_bytes = now;
        if (ret_estimate->peak_bytes < now)
            ret_estimate->peak_bytes = now;
    }
    return result;
}
