/* model: what engine.c, encode.c and generate.c share. Private to the engine. */
#ifndef MYSTI_ENGINE_MODEL_H
#define MYSTI_ENGINE_MODEL_H

#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/graph/backend.h"
#include "engine/preview.h"
#include "engine/text/editing.h"
#include "engine/text/prompt.h"

struct engine {
    struct backend *backend;
    enum store_weights weights;                  /* of text encoders and U-Nets */
    char *lora_folders[ENGINE_LORA_FOLDERS + 1]; /* NULL at the end */
    char *upscaler_folders[2];
    char *embedding_folders[2]; /* of textual inversions */
    char *vae_folders[2];
    char *vae; /* of jobs that name none; NULL: the model's own */
    bool previews_by_taesd;
};

enum stage {
    STAGE_ENCODE,
    STAGE_CONTEXT,
    STAGE_STEP,
    STAGE_DECODE,
    STAGE_START,
    STAGE_PREVIEW,
    STAGE_COUNT
};

/* The graphs of one picture size, compiled. STAGE_START, a picture to its latent, only
 * for jobs that start from one; STAGE_PREVIEW, see show.c; else NULL. */
struct stages {
    struct picture_size size;
    struct graph *graphs[STAGE_COUNT];
    struct program *programs[STAGE_COUNT];
};

struct loras;
struct other_vae;

/* The TAESD that decodes previews; file NULL: they are made by preview.h. */
struct preview_vae {
    struct weights_file *file;
    struct vae vae;
};

struct engine_model {
    struct engine *engine;
    struct checkpoint *checkpoint;
    struct weight_store *store;     /* of the text encoder and the U-Net */
    struct weight_store *vae_store; /* of the VAE that is in use */
    struct other_vae *other_vae;    /* see vaes.h; NULL: the checkpoint's own is */
    struct stages *stages;          /* of the size that was asked for last */
    struct preview preview;         /* learned with the first one */
    struct preview_vae preview_vae;
    struct weight_store *preview_store; /* of it */
    struct loras *loras; /* over the weights; NULL before the first job */
    bool is_laid;        /* the weights are packed with just these */
};

/* Compiles for `size` unless the model has it; weights are not packed yet. */
int model_compile(struct engine_model *model, const struct picture_size *size,
                  struct err *err) MUST_CHECK;
/* Finds the file of previews, if there is to be one (show.c). One that is there and does not fit is ERR_BAD_FILE. */
int preview_vae_open(struct engine_model *model, struct err *err) MUST_CHECK;
void preview_vae_close(struct preview_vae *p);
/* What was compiled is not used any more. */
void model_forget_stages(struct engine_model *model);
/* What the stages will add to them. */
uint64_t model_missing_bytes(const struct engine_model *model);
/* Packed weights, now. */
uint64_t model_resident_bytes(const struct engine_model *model);
/* Packs what the stages need; asks `stop` before each weight. */
int model_pack(struct engine_model *model, struct stop *stop,
               struct err *err) MUST_CHECK;

/* One of the two walks of a job with a hires fix (hires.c). The first one's result goes to a callback; the second
 * begins with what became of it. */
struct engine_pass {
    const struct engine_job
        *whole;           /* as it was asked for, with the size that it ends with */
    const char *upscaler; /* as A1111 writes it */
    int steps_before;     /* of the first walk; 0: this is the first */
    const float *latent;  /* the second begins with: [H, W, C], or */
    const uint8_t *rgb;   /* [height, width, 3] */
    /* The first one: its latent, or its picture, is taken, and nothing is handed out. */
    void (*on_latent)(void *user, const float *latent);
    void (*on_picture)(void *user, const uint8_t *rgb);
    void *user;
};

/* A job whose names and numbers were understood. */
struct plan_of_job {
    struct picture_size size;
    enum sampler sampler;
    enum scheduler scheduler;
    enum noise_kind rng;
    enum dialect dialect;
    enum prediction prediction;
    struct sampler_options options;
    enum prompt_syntax syntax;
    double guidance; /* the scale, as the sampler wants it */
    int parts; /* of the prompt: the first rows of the batch; then the negative one */
    int kept_texts;  /* different ones that the prompts say; 0: they never change */
    int levels;      /* steps of the whole schedule */
    int walked;      /* of them the last so many are walked */
    bool begins;     /* with a latent: a picture's, or the first pass's */
    bool releases;   /* the text encoder leaves memory once the prompts are read */
    bool skips;      /* the negative prompt is left out in some runs: rows go apart */
    bool tiles;      /* the VAE's are wanted */
    const char *way; /* see memory.c; static */
};

int job_understand(const struct engine_model *model, const struct engine_job *job,
                   struct plan_of_job *ret_plan, struct err *err) MUST_CHECK;

/* Of a plan with everything but the prompts: their syntax, batch, chunks and vectors. */
int job_understand_prompts(const struct engine_model *model,
                           const struct engine_job *job, struct plan_of_job *plan,
                           struct err *err) MUST_CHECK;

/* Everything that a running job keeps in memory beside the packed weights, as offsets
 * into one block. */
struct job_memory {
    size_t arena;     /* all stages' */
    size_t ids;       /* [text encoders, batch chunks, positions] i32 */
    size_t rows;      /* [vectors, width] f32 for each text encoder */
    size_t hidden;    /* [batch chunks, positions, width] f32 */
    size_t texts;     /* [kept_texts, chunks positions, width] f32 */
    size_t states;    /* [batch chunks, positions, the summary's encoder's width] f32 */
    size_t labels;    /* [batch, label width] f32 */
    size_t summaries; /* [kept_texts, summary's width] f32 */
    size_t label;     /* [batch, label channels] f32: what the U-Net makes of labels */
    size_t guide;     /* [guide width] f32 */
    size_t *contexts; /* per cross-attention, activation type; context_count of them */
    int context_count;
    size_t
        latents; /* [batch, H, W, C] f32: what the U-Net reads; C is 9 for inpainting */
    size_t shown;      /* [H, W, 1 + C] f32: the mask and the latent that it is shown */
    size_t prediction; /* [batch, H, W, C] f32 */
    size_t row;        /* [H, W, C] f32: one of prediction, where rows are apart */
    size_t x;          /* [H, W, C] f32 */
    size_t t;          /* [1] f32 */
    size_t picture;    /* [height, width, 3] f32 */
    size_t rgb;        /* [height, width, 3] bytes */
    size_t first;      /* [H, W, C] f32: the picture to start from, as a latent */
    size_t moments;    /* [H, W, vae_moments()] f32: what the encoder says */
    size_t tile_in, tile_out; /* of the VAE, where it works in tiles */
    size_t strip;             /* a row of tiles, put together */
    size_t total;
    size_t beside; /* what the sampler and the PNG encoder allocate for themselves, at
                      most */
};

struct loras;

/* Chooses the first way to draw that keeps to the job's budget, and compiles for it. ret_growth: bytes beyond what is
 * resident. ERR_NO_MEMORY: none does; then the one that takes least is compiled, and ret_growth its. */
int model_fit(struct engine_model *model, const struct engine_job *job,
              struct plan_of_job *plan, const struct loras *loras, uint64_t *ret_growth,
              struct err *err) MUST_CHECK;

/* engine_estimate() with the VAE that the model has. What was compiled for it stays. */
int model_estimate(struct engine_model *model, const struct engine_job *job,
                   struct engine_estimate *ret_estimate, struct err *err) MUST_CHECK;

void job_memory_lay_out(struct job_memory *ret_memory, const struct engine_model *model,
                        const struct plan_of_job *plan);
void job_memory_release(struct job_memory *memory);

#endif
