/* For the autoencoders of Stable Diffusion 1 and 2 and of SDXL the factors are known; everybody uses the same ones
 * (regressions by the users of the first web interfaces). Any other autoencoder is asked: 64 patches of plain
 * colours are encoded, and the factors are the least-squares solution of "colour = factors x latent". Through the
 * encoder and not the decoder, because random latents mean nothing to a decoder. A file without encoder gets Stable
 * Diffusion's factors: wrong colours at worst, and only in a preview.
 *
 * Rejected: decoding every few steps, which at 512 pixels costs more than a step. Where a TAESD is there and wanted, show.c
 * takes that instead. */
#include "engine/preview.h"

#include "base/mem.h"
#include "engine/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STANDARD_WIDTH 512 /* of the decoder's first convolution in SD's autoencoder */
#define PATCHES 8          /* in a row, and rows of them */
#define UNKNOWNS (PREVIEW_CHANNELS_MAX + 1)

/* of Stable Diffusion 1 and 2, and of SDXL; the last row is what is added */
static const double standard[2][5][3] = {{{0.3512, 0.2297, 0.3227},
                                          {0.3250, 0.4974, 0.2350},
                                          {-0.2829, 0.1762, 0.2721},
                                          {-0.2120, -0.2616, -0.7177},
                                          {0, 0, 0}},
                                         {{0.3651, 0.4232, 0.4341},
                                          {-0.2533, -0.0042, 0.1068},
                                          {0.1076, 0.1111, -0.0362},
                                          {-0.3165, -0.2492, -0.2188},
                                          {0.1084, -0.0175, -0.0011}}};

static void use_standard(struct preview *p, const struct family *family)
{
    memcpy(p->factors, standard[family->is_sdxl], sizeof(standard[0]));
    p->channels = p->channels ? p->channels : 4;
}

/* ---- asking the encoder ---- */

/* Colours that are spread over the cube, the same ones always. */
static float colour(int patch, int channel)
{
    static const double steps[3] = {0.8191725, 0.6710436,
                                    0.5497005}; /* 1/g, 1/g^2, 1/g^3; g^4 = g + 1 */
    double v = 0.5 + (patch + 1) * steps[channel];

    return (float)(2 * (v - floor(v)) - 1);
}

/* picture [PATCHES * scale, PATCHES * scale, 3] */
static float *paint_patches(int scale)
{
    int side = PATCHES * scale;
    float *picture =
        aligned_alloc(64, ((size_t)side * (size_t)side * 3 * 4 + 63) / 64 * 64);

    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++)
                picture[(y * side + x) * 3 + c] =
                    colour(y / scale * PATCHES + x / scale, c);
    return picture;
}

/* The picture's latent moments [PATCHES^2, vae_moments()]; NULL: it could not be done. In a store of its own, so that the
 * model grows by nothing. */
static float *encode(const struct engine_model *model, float *picture)
{
    const struct backend_ops *ops = model->engine->backend->ops;
    const struct checkpoint *c = model->checkpoint;
    int side = PATCHES * c->vae.scale;
    const struct picture_size size = {
        .width = side, .height = side, .batch = 1, .starts = 1, .chunks = 1};
    struct graph *graph = checkpoint_start_graph(c, &size);
    struct weight_store *store =
        ops->store_new(model->engine->backend, STORE_AS_COMPUTED);
    size_t bytes = (size_t)PATCHES * PATCHES * (size_t)vae_moments(&c->vae) * 4;
    float *moments = aligned_alloc(64, (bytes + 63) / 64 * 64);
    struct program *program = NULL;
    struct program_run run = {.inputs = (void *[]){picture},
                              .outputs = (void *[]){moments}};
    bool done =
        ops->compile(model->engine->backend, graph, store, &program, NULL) == 0 &&
        ops->load(program, NULL, NULL) == 0;

    if (done) {
        run.arena = aligned_alloc(64, program->arena_bytes + 64);
        done = run.arena && ops->run(program, &run, NULL) == 0;
        free(run.arena);
    }
    if (program)
        ops->program_free(program);
    ops->store_free(store);
    graph_free(graph);
    if (done)
        return moments;
    free(moments);
    return NULL;
}

/* a x = b by elimination with pivots, three right sides; false when a is singular */
static bool solve(double a[UNKNOWNS][UNKNOWNS], double b[UNKNOWNS][3], int n)
{
    for (int i = 0; i < n; i++) {
        int pivot = i;

        for (int r = i + 1; r < n; r++)
            if (fabs(a[r][i]) > fabs(a[pivot][i]))
                pivot = r;
        if (fabs(a[pivot][i]) < 1e-12)
            return false;
        for (int k = 0; k < n; k++) {
            double t = a[i][k];
            a[i][k] = a[pivot][k];
            a[pivot][k] = t;
        }
        for (int k = 0; k < 3; k++) {
            double t = b[i][k];
            b[i][k] = b[pivot][k];
            b[pivot][k] = t;
        }
        for (int r = 0; r < n; r++) {
            double f = r == i ? 0 : a[r][i] / a[i][i];

            for (int k = 0; k < n; k++)
                a[r][k] -= f * a[i][k];
            for (int k = 0; k < 3; k++)
                b[r][k] -= f * b[i][k];
        }
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 3; k++)
            b[i][k] /= a[i][i];
    return true;
}

static bool fit(struct preview *p, const float *moments, const struct vae *vae,
                double family_scale)
{
    double scale = vae_latent_scale(vae, family_scale);
    int64_t said = vae_moments(vae);
    double a[UNKNOWNS][UNKNOWNS] = {{0}}, b[UNKNOWNS][3] = {{0}};
    int n = p->channels + 1;

    for (int patch = 0; patch < PATCHES * PATCHES; patch++) {
        double row[UNKNOWNS];

        for (int c = 0; c < p->channels; c++)
            row[c] = (double)moments[patch * said + c] * scale;
        row[p->channels] = 1;
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < n; k++)
                a[i][k] += row[i] * row[k];
            for (int k = 0; k < 3; k++)
                b[i][k] += row[i] * (double)colour(patch, k);
        }
    }
    for (int i = 0; i < n; i++)
        a[i][i] += 1e-6; /* a channel that no colour moves gets no say */
    if (!solve(a, b, n))
        return false;
    memcpy(p->factors, b, sizeof(b));
    return true;
}

void preview_learn(struct engine_model *model)
{
    const struct checkpoint *c = model->checkpoint;
    const struct weight *first =
        weights_file_find(c->vae.file, "first_stage_model.decoder.conv_in.weight");
    struct preview *p = &model->preview;
    float *picture, *moments;

    *p = (struct preview){.is_known = true, .channels = (int)c->vae.latent_channels};
    if (p->channels > PREVIEW_CHANNELS_MAX)
        p->channels = PREVIEW_CHANNELS_MAX;
    use_standard(p, c->family);
    if ((first && first->dim[0] == STANDARD_WIDTH) || !c->vae.has_encoder)
        return;
    picture = paint_patches(c->vae.scale);
    moments = encode(model, picture);
    if (moments && !fit(p, moments, &c->vae, c->family->latent_scale))
        use_standard(p, c->family);
    free(picture);
    free(moments);
}

void preview_draw(const struct preview *p, const float *latent, size_t count,
                  uint8_t *ret_rgb)
{
    size_t pixels = count / (size_t)p->channels;

    for (size_t i = 0; i < pixels; i++) {
        const float *from = latent + i * (size_t)p->channels;

        for (size_t k = 0; k < 3; k++) {
            double v = p->factors[p->channels][k];

            for (int c = 0; c < p->channels; c++)
                v += p->factors[c][k] * (double)from[c];
            v = (v + 1) * 127.5;
            ret_rgb[3 * i + k] = !(v > 0) ? 0 : v > 255 ? 255 : (uint8_t)lrint(v);
        }
    }
}
