/* upscale: a picture made larger, by a network in tiles or by resizing alone.
 *
 * How large a tile: 192 pixels, as A1111 has it. The largest tensors of the network have the size of the enlarged tile and 64
 * channels; two of them are alive at once, so at four times the scale a tile takes 150 MB in bf16 and twice that in
 * f32, and the picture's own size hardly matters.
 *
 * How much they overlap: 32 pixels. A network of 23 blocks has 349 convolutions one behind the other and could look 350
 * pixels far; no tile could be that large. It does not: what a pixel at that distance does to the result has gone
 * through hundreds of fifths. Real-ESRGAN's own program takes 10 pixels around each tile and cuts hard there; here at
 * least 8 are thrown away and the next 16 are faded.
 *
 * Memory is known before anything runs: which sizes the picture goes through, and the block in which a tile is worked
 * on, are computed by the same functions that then do it. */
#include "engine/engine.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/named_files.h"
#include "base/pages.h"
#include "base/png_text.h"
#include "engine/image/png.h"
#include "engine/image/read.h"
#include "engine/model.h"
#include "engine/upscale/net.h"
#include "engine/upscale/tiles.h"
#include "engine/upscale/upscale.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum { TILE = 192, TILE_MIN = 16, TILE_MAX = 2048, OVERLAP = 32, PASSES_MAX = 3 };

struct engine_upscaler {
    struct engine *engine;
    struct net *net;
    char *name;
    struct weight_store *store;
    struct graph *graph; /* of this tile; NULL: none yet */
    struct program *program;
    int high, wide;
};

/* ---- upscalers ---- */

static char *stem_of(const char *path)
{
    const char *name = file_name(path), *dot = strrchr(name, '.');

    return dot ? mem_strndup(name, (size_t)(dot - name)) : mem_strdup(name);
}

static int open_path(struct engine_upscaler **ret, struct engine *engine,
                     const char *path, struct err *err)
{
    struct engine_upscaler *u;
    struct weights_file *file;
    struct net *net;

    if (weights_file_open(&file, path, err))
        return -1;
    if (net_read(&net, file, err))
        return err_wrap(err, "%s", path);
    u = mem_zalloc(sizeof(*u));
    u->engine = engine;
    u->net = net;
    u->name = stem_of(path);
    u->store = engine->backend->ops->store_new(engine->backend, STORE_AS_COMPUTED);
    *ret = u;
    return 0;
}

int engine_upscaler_open(struct engine_upscaler **ret, struct engine *engine,
                         const char *name, struct err *err)
{
    const struct named_search search = {engine->upscaler_folders, "upscaler",
                                        "upscaler"};
    char *path;
    int rc;

    if (name[0] == '/')
        return open_path(ret, engine, name, err);
    if (named_file_find(&search, name, &path, err))
        return -1;
    rc = open_path(ret, engine, path, err);
    free(path);
    return rc;
}

static void forget_program(struct engine_upscaler *u)
{
    if (u->program)
        u->engine->backend->ops->program_free(u->program);
    graph_free(u->graph);
    u->program = NULL;
    u->graph = NULL;
}

/* The next job packs them again. */
static void forget_weights(struct engine_upscaler *u)
{
    forget_program(u);
    u->engine->backend->ops->store_free(u->store);
    u->store =
        u->engine->backend->ops->store_new(u->engine->backend, STORE_AS_COMPUTED);
}

void engine_upscaler_close(struct engine_upscaler *u)
{
    if (!u)
        return;
    forget_program(u);
    u->engine->backend->ops->store_free(u->store);
    net_close(u->net);
    free(u->name);
    free(u);
}

void engine_upscaler_info(const struct engine_upscaler *u,
                          struct engine_upscaler_info *ret_info)
{
    *ret_info = (struct engine_upscaler_info){.name = u->name,
                                              .scale = u->net->scale,
                                              .blocks = u->net->blocks,
                                              .parameters = u->net->weights};
}

static int compile(struct engine_upscaler *u, int high, int wide, struct err *err)
{
    struct backend *backend = u->engine->backend;

    if (u->program && u->high == high && u->wide == wide)
        return 0;
    forget_program(u);
    u->graph = net_graph(u->net, high, wide);
    u->high = high;
    u->wide = wide;
    if (graph_check(u->graph, err) ||
        backend->ops->compile(backend, u->graph, u->store, &u->program, err)) {
        forget_program(u);
        return -1;
    }
    return 0;
}

/* ---- the way from one size to the other ---- */

struct way {
    struct upscale_size from, to;
    double factor;
    int passes; /* of the network */
    bool is_nearest;
    struct tiles tiles[PASSES_MAX];
};

static uint64_t pixels(struct upscale_size s)
{
    return (uint64_t)s.width * (uint64_t)s.height;
}

static struct upscale_size times(struct upscale_size s, double factor)
{
    return (struct upscale_size){(int)lrint(s.width * factor),
                                 (int)lrint(s.height * factor)};
}

static int check_numbers(const struct engine_upscale *job, int tile, int overlap,
                         struct err *err)
{
    if (job->factor != 0 && !(job->factor >= 1 && job->factor <= ENGINE_MAX_FACTOR))
        return err_set_param(err, ERR_INVALID, "factor",
                             "factor is %g, 1 to %d are possible", job->factor,
                             ENGINE_MAX_FACTOR);
    if (tile < TILE_MIN || tile > TILE_MAX)
        return err_set_param(err, ERR_INVALID, "tile",
                             "tile is %d, %d to %d pixels are possible", tile, TILE_MIN,
                             TILE_MAX);
    if (overlap < 0 || overlap > tile / 2)
        return err_set_param(err, ERR_INVALID, "overlap",
                             "overlap is %d, 0 to half a tile (%d) are possible",
                             overlap, tile / 2);
    return 0;
}

static int check_method(const char *method, struct way *way, struct err *err)
{
    way->is_nearest = method && strcasecmp(method, "nearest") == 0;
    if (!method || way->is_nearest || strcasecmp(method, "lanczos") == 0)
        return 0;
    return err_set_param(err, ERR_INVALID, "upscaler",
                         "there is no way of resizing called '%.60s': lanczos and "
                         "nearest are known",
                         method);
}

static void plan_passes(const struct engine_upscaler *u, int tile, int overlap,
                        struct way *way)
{
    struct upscale_size now = way->from;
    int scale = u->net->scale;

    do {
        const struct tiles_options o = {.width = now.width,
                                        .height = now.height,
                                        .tile = tile,
                                        .overlap = overlap,
                                        .shuffle = u->net->shuffle,
                                        .scale = scale};

        tiles_plan(&way->tiles[way->passes++], &o);
        now = times(now, scale);
    } while (scale > 1 && way->passes < PASSES_MAX &&
             (now.width < way->to.width || now.height < way->to.height) &&
             pixels(times(now, scale)) <= IMAGE_MAX_PIXELS);
}

static int plan_way(const struct engine_upscaler *u, const struct engine_upscale *job,
                    struct way *ret, struct err *err)
{
    int tile = job->tile ? job->tile : TILE;
    int overlap = job->overlap ? job->overlap : OVERLAP < tile / 2 ? OVERLAP : tile / 2;
    struct way way = {0};
    struct upscale_size largest;

    if (check_numbers(job, tile, overlap, err) || check_method(job->method, &way, err))
        return -1;
    if (image_read_size(job->image.data, job->image.bytes, &way.from.width,
                        &way.from.height, err))
        return -1;
    way.factor = job->factor > 0 ? job->factor : u ? u->net->scale : 2;
    way.to = times(way.from, way.factor);
    largest = u ? times(way.from, fmax(way.factor, u->net->scale)) : way.to;
    if (pixels(way.from) > IMAGE_MAX_PIXELS || pixels(largest) > IMAGE_MAX_PIXELS)
        return err_set_param(
            err, ERR_INVALID, "factor",
            "a picture of %d x %d pixels would become one of %d x %d, more than %d "
            "million pixels: choose a smaller factor%s",
            way.from.width, way.from.height, largest.width, largest.height,
            IMAGE_MAX_PIXELS / 1000000, u ? ", an upscaler of a smaller scale" : "");
    if (u)
        plan_passes(u, tile, overlap, &way);
    *ret = way;
    return 0;
}

/* ---- memory ---- */

/* What a tile needs, as offsets into one block. */
struct tile_memory {
    size_t arena, in, made, out, strip, total;
};

static size_t take(size_t *total, size_t bytes)
{
    size_t at = *total;

    *total += (bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
    return at;
}

static struct tile_memory lay_out(const struct engine_upscaler *u,
                                  const struct tiles *t)
{
    size_t in = (size_t)u->high * (size_t)u->wide * 3 * sizeof(float);
    struct tile_memory m = {0};

    m.arena = take(&m.total, u->program->arena_bytes);
    m.in = take(&m.total, in);
    m.made = take(&m.total, net_made_bytes(u->net, u->high, u->wide));
    m.out = take(&m.total, in * (size_t)(u->net->scale * u->net->scale));
    m.strip = take(&m.total, tiles_strip_bytes(t));
    return m;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Beside what is packed already. */
static int way_bytes(struct engine_upscaler *u, const struct way *way, uint64_t *ret,
                     struct err *err)
{
    struct upscale_size now = way->from;
    uint64_t peak = 2 * 4 * pixels(now) /* decoding */, packed = 0;

    for (int i = 0; i < way->passes; i++) {
        struct upscale_size next = times(now, u->net->scale);

        if (compile(u, way->tiles[i].down.tile, way->tiles[i].across.tile, err))
            return -1;
        packed = most(packed, u->engine->backend->ops->missing_bytes(u->program));
        peak =
            most(peak, 4 * (pixels(now) + pixels(next)) +
                           lay_out(u, &way->tiles[i]).total + u->program->other_bytes);
        now = next;
    }
    if (pixels(now) != pixels(way->to))
        peak = most(peak,
                    4 * (pixels(now) + (uint64_t)way->to.width * (uint64_t)now.height +
                         pixels(way->to)));
    *ret = packed + peak;
    return 0;
}

int engine_upscale_estimate(struct engine_upscaler *u, const struct engine_upscale *job,
                            struct engine_estimate *ret_estimate, struct err *err)
{
    struct engine_estimate estimate = {0};
    struct way way;
    uint64_t bytes;

    if (plan_way(u, job, &way, err) || way_bytes(u, &way, &bytes, err))
        return -1;
    /* a PNG is never much larger than its pixels, and its buffer grows by doubling */
    bytes = most(bytes, (4 + 2 * 3) * pixels(way.to));
    if (u)
        estimate.resident_bytes = u->engine->backend->ops->store_bytes(u->store);
    estimate.peak_bytes = estimate.resident_bytes + bytes;
    *ret_estimate = estimate;
    return 0;
}

/* ---- doing it ---- */

struct run {
    struct engine_upscaler *u; /* NULL: none */
    const struct engine_events *events;
    struct way way;
    struct image picture;
    int done, all; /* tiles */
};

static bool is_cancelled(void *user)
{
    struct run *run = user;

    return run->events->is_cancelled && run->events->is_cancelled(run->events->user);
}

static int one_tile(struct run *run, const struct tiles *t, int index, char *block,
                    struct image *larger, struct err *err)
{
    struct engine_upscaler *u = run->u;
    const struct tile_memory m = lay_out(u, t);
    float *in = (float *)(block + m.in), *out = (float *)(block + m.out);
    bool is_whole = net_made_bytes(u->net, u->high, u->wide) == 0;
    float *made = is_whole ? out : (float *)(block + m.made);
    const struct program_run how = {.arena = block + m.arena,
                                    .inputs = (void *[]){in},
                                    .outputs = (void *[]){made},
                                    .is_cancelled = is_cancelled,
                                    .user = run};

    tiles_cut(t, index, &run->picture, in);
    if (u->engine->backend->ops->run(u->program, &how, err))
        return -1;
    if (!is_whole)
        net_finish(u->net, in, made, u->high, u->wide, out);
    if (tiles_put(t, index, out, (uint8_t *)block + m.strip, larger))
        return err_set(err, ERR_INTERNAL,
                       "the picture is not a number: the weights of %s are damaged or "
                       "overflow",
                       u->name);
    if (run->events->on_step)
        run->events->on_step(run->events->user, 0, ++run->done, run->all);
    return 0;
}

static int one_pass(struct run *run, const struct tiles *t, struct err *err)
{
    struct engine_upscaler *u = run->u;
    struct image larger = {.width = run->picture.width * u->net->scale,
                           .height = run->picture.height * u->net->scale};
    struct stop stop = {.is_cancelled = is_cancelled, .user = run};
    char *block = NULL;
    size_t bytes = 0;
    int rc = -1;

    if (compile(u, t->down.tile, t->across.tile, err) ||
        u->engine->backend->ops->load(u->program, &stop, err))
        return -1;
    weights_file_forget(u->net->file);
    larger.rgba = mem_try_zalloc((size_t)larger.width * (size_t)larger.height, 4);
    bytes = lay_out(u, t).total;
    block = pages_alloc(bytes);
    if (!larger.rgba || !block) {
        err_set(err, ERR_NO_MEMORY, "no memory for a picture of %d x %d pixels",
                larger.width, larger.height);
        goto out;
    }
    rc = 0;
    for (int i = 0; rc == 0 && i < tiles_count(t); i++)
        rc = one_tile(run, t, i, block, &larger, err);
out:
    pages_free(block, bytes);
    if (rc == 0) {
        image_release(&run->picture);
        run->picture = larger;
    } else {
        image_release(&larger);
    }
    return rc;
}

/* A1111's words: what the picture says of itself stays, and this is put beside it. */
static size_t describe(const struct run *run, const struct engine_file *file,
                       struct buf *parameters, struct buf *done,
                       struct image_text texts[2])
{
    size_t count = 0;

    buf_printf(done, "Postprocess upscale by: %g, Postprocess upscaler: %s",
               run->way.factor,
               run->u                ? run->u->name
               : run->way.is_nearest ? "Nearest"
                                     : "Lanczos");
    if (png_text_read(file->data, file->bytes, "parameters", parameters, NULL) > 0)
        texts[count++] = (struct image_text){"parameters", buf_str(parameters)};
    texts[count++] = (struct image_text){"postprocessing", buf_str(done)};
    return count;
}

static int deliver(struct run *run, const struct engine_file *file, struct err *err)
{
    struct image *p = &run->picture;
    struct buf parameters = {0}, done = {0}, png = {0};
    struct image_text texts[2];
    struct err reason = {0};
    size_t count = describe(run, file, &parameters, &done, texts);
    struct engine_image image = {.variation_seed = -1,
                                 .width = p->width,
                                 .height = p->height,
                                 .rgb = p->rgba,
                                 .parameters = buf_str(&parameters)};
    struct stop stop = {.is_cancelled = is_cancelled, .user = run};
    int rc;

    for (size_t i = 1; i < (size_t)p->width * (size_t)p->height; i++)
        memmove(p->rgba + 3 * i, p->rgba + 4 * i, 3);
    rc = image_png_write(&(struct image_png){image.rgb, (unsigned)p->width,
                                             (unsigned)p->height, texts, count, &stop},
                         &png, err);
    image.png = png.data;
    image.png_bytes = png.len;
    if (rc == 0 && run->events->on_image &&
        !run->events->on_image(run->events->user, &image, &reason))
        rc = reason.code ? err_set(err, reason.code, "%s", reason.message)
                         : err_set(err, ERR_CANCELLED, "the job was cancelled");
    buf_release(&parameters);
    buf_release(&done);
    buf_release(&png);
    return rc;
}

static int enlarge(struct run *run, struct err *err)
{
    const struct way *way = &run->way;

    for (int i = 0; i < way->passes; i++)
        run->all += tiles_count(&way->tiles[i]);
    for (int i = 0; i < way->passes; i++)
        if (one_pass(run, &way->tiles[i], err))
            return -1;
    if (is_cancelled(run))
        return err_set(err, ERR_CANCELLED, "the job was cancelled");
    if (way->is_nearest && !run->u)
        return image_resize_nearest(&run->picture, way->to.width, way->to.height, err);
    return image_resize(&run->picture, IMAGE_STRETCH, way->to.width, way->to.height,
                        err);
}

int engine_upscale(struct engine_upscaler *u, const struct engine_upscale *job,
                   const struct engine_events *events, struct err *err)
{
    static const struct engine_events nothing;
    struct run run = {.u = u, .events = events ? events : &nothing};
    int rc = -1;

    if (plan_way(u, job, &run.way, err))
        return -1;
    if (run.events->on_phase)
        run.events->on_phase(run.events->user, ENGINE_PHASE_UPSCALE, 0);
    if (image_read(job->image.data, job->image.bytes, &run.picture, err) == 0 &&
        enlarge(&run, err) == 0)
        rc = deliver(&run, &job->image, err);
    image_release(&run.picture);
    return rc;
}

/* ---- for the rest of the engine ---- */

static struct way way_to(const struct engine_upscaler *u, struct upscale_size from,
                         const struct upscale_to *to)
{
    struct way way = {.from = from, .to = to->size, .is_nearest = to->is_nearest};

    if (u)
        plan_passes(u, TILE, OVERLAP, &way);
    return way;
}

int upscale_image(struct engine_upscaler *u, struct image *picture,
                  const struct upscale_to *to, const struct engine_events *events,
                  struct err *err)
{
    struct upscale_size from = {picture->width, picture->height};
    struct run run = {.u = u, .events = events, .way = way_to(u, from, to)};
    int rc;

    run.picture = *picture;
    rc = enlarge(&run, err);
    *picture = run.picture;
    if (u)
        forget_weights(u);
    return rc;
}

int upscale_bytes(struct engine_upscaler *u, struct upscale_size from,
                  const struct upscale_to *to, uint64_t *ret, struct err *err)
{
    struct way way = way_to(u, from, to);

    return way_bytes(u, &way, ret, err);
}
