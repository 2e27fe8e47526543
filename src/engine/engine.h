/* engine: text to pictures. The only header of this folder that code outside of it
 * includes.
 *
 *   engine_open(&engine, &(struct engine_options){.backend = "dnnl"}, &err);
 *   engine_model_load(&model, engine, path, NULL, &err);
 *   engine_job_defaults(model, &job);
 *   job.prompt = "a red circle";
 *   engine_estimate(model, &job, &estimate, &err);       bytes, before anything runs
 *   engine_generate(model, &job, &(struct engine_events){.on_image = mine}, &err);
 *
 * One thread at a time per engine; the back end uses threads of its own inside a call.
 * Callbacks run on the calling thread, in the middle of the work: they must be short.
 * Nothing here logs, prints or exits. Failures: 400 bad_file (what the file lacks, by
 * name), 400 invalid_value with the field in err->param, 404 for a path that is not
 * there, 499 cancelled, 503 out_of_memory, 500 when the picture is not a number. */
#ifndef MYSTI_ENGINE_ENGINE_H
#define MYSTI_ENGINE_ENGINE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct engine_model;

enum { ENGINE_LORA_FOLDERS = 4 };

struct engine_options {
    const char *backend;   /* "dnnl", "ref"; NULL: the best that is built in */
    const char *precision; /* "f32", "bf16"; NULL: the best for this processor */
    const char *
        weights; /* "int8": those of text encoder and U-Net in half of bf16's memory, with other pictures for
                            it; "auto", NULL: as they are computed with */
    int threads; /* 0: one per processor core */
    /* Where the LoRAs of prompts are, the first one first; NULL: no more. Copied. */
    const char *lora_folders[ENGINE_LORA_FOLDERS];
    const char *upscaler_folder;  /* where upscalers are; NULL: nowhere. Copied. */
    const char *embedding_folder; /* of the textual inversions of prompts, likewise */
    const char *vae_folder;       /* of the VAEs that jobs name, likewise */
    const char *
        vae; /* which of them those jobs have that name none; NULL: the model's own. Copied. */
    /* "latent2rgb", "taesd": decoded by the taesd (of SDXL taesdxl) in the VAE folder, where it is there; NULL: the first */
    const char *preview_method;
};

int engine_open(struct engine **ret_engine, const struct engine_options *options,
                struct err *err) MUST_CHECK;
void engine_close(struct engine *engine);                     /* after its models */
const char *engine_backend_name(const struct engine *engine); /* "dnnl", "ref" */
const char *engine_backend_names(void); /* "dnnl, ref": what is built in */

struct engine_load_events {
    /* 0..1, now and then; true ends the load with ERR_CANCELLED. May be NULL. */
    bool (*on_progress)(void *user, double progress);
    void *user;
};

/* Opens the file, builds the model, packs its weights. A file without a VAE is a model, too: its jobs need another one.
 * events may be NULL. */
int engine_model_load(struct engine_model **ret_model, struct engine *engine,
                      const char *path, const struct engine_load_events *events,
                      struct err *err) MUST_CHECK;
void engine_model_free(struct engine_model *model);

struct engine_model_info {
    const char *path;
    const char *name;   /* from the metadata, else the file's name without its ending */
    const char *family; /* "sd1", "sd2", "sdxl" */
    const char *prediction; /* "eps", "v" */
    uint64_t parameters;
    uint64_t resident_bytes; /* packed weights, now */
    int default_width, default_height, default_steps;
    double default_cfg_scale;
    const char *default_sampler, *default_scheduler;
};

/* The strings live as long as the model. */
void engine_model_info(const struct engine_model *model,
                       struct engine_model_info *ret_info);

/* What a file is, from its names and shapes, without loading it: one JSON object as text
 * (docs/files.md says its keys); free() it. Any file of a known format, whole or not,
 * drawable or not; ERR_NOT_FOUND and ERR_BAD_FILE for the others. */
int engine_inspect(char **ret_json, const char *path, struct err *err) MUST_CHECK;

/* What SDXL is told of a picture's sizes, in this order: original_height, original_width,
 * crop_top, crop_left, target_height, target_width. */
enum { ENGINE_SIZES = 6, ENGINE_MAX_TOLD_SIZE = 16384 };
extern const char *const engine_size_names[ENGINE_SIZES];

#define ENGINE_MAX_SIZE 2048 /* pixels, width and height */
#define ENGINE_MAX_STEPS 150
#define ENGINE_MAX_COUNT 16

/* The bytes of a PNG, JPEG or WebP file; data NULL: none. */
struct engine_file {
    const void *data;
    size_t bytes;
};

/* What the masked part holds before it is drawn. */
enum engine_fill {
    ENGINE_FILL_ORIGINAL, /* what is there */
    ENGINE_FILL_AROUND,   /* the colours around it */
    ENGINE_FILL_NOISE,    /* noise in the latent */
    ENGINE_FILL_NOTHING,  /* zeros in the latent */
};

enum { ENGINE_SEAMLESS_X = 1, ENGINE_SEAMLESS_Y = 2 };

/* "none", "x", "y", "both" */
int engine_seamless_parse(const char *name, int *ret, struct err *err) MUST_CHECK;

/* Image to image: begins with a picture instead of noise alone. */
struct engine_start {
    struct engine_file image;
    struct engine_file mask; /* white, or transparent, is drawn anew; none: what is
                                transparent in the picture, else everything */
    double strength;         /* 0..1: how much of the walk is done, how far the picture
                                may move */
    bool is_cropped;         /* to the job's proportions; else stretched to its size */
    bool only_masked; /* draws the masked part alone, at the job's size, and puts it
                           back: the picture keeps its own size */
    int padding;      /* pixels around the masked part, with only_masked */
    double mask_blur; /* standard deviation in pixels */
    enum engine_fill fill;
};

/* Hires fix: a picture is drawn at the job's size, made larger, and drawn over once more at the larger size. */
struct engine_hires {
    double
        scale; /* of both sides; 0: none, then width and height say it, or there is no
                     hires fix at all */
    int width,
        height; /* of the result; of one that is 0 the proportions say it, and where both are of another shape
                          what is too much of the larger picture is left out */
    const char
        *upscaler;   /* "latent", "latent-nearest" (A1111's labels, too): the latent
                             is enlarged; "lanczos", "nearest", or an upscaler's name:
                             the picture is; NULL: "latent" */
    int steps;       /* of the second walk; 0: as many as of the first */
    double strength; /* 0..1: how much the second one changes */
};

struct engine_pass; /* the engine's own */

struct engine_job {
    const char *prompt;          /* UTF-8, with brackets, AND and LoRAs
                                    (docs/prompts.md); "" is a prompt, NULL is none */
    const char *negative_prompt; /* NULL: "" */
    int width, height; /* multiples of 8 (more where the model halves more often) */
    int steps;
    double cfg_scale;     /* 1: no guidance, the negative prompt is not used */
    int64_t seed;         /* -1: drawn; image i of the job uses seed + i */
    const int64_t *seeds; /* [count], each image's own, instead of seed; NULL: none */
    /* Above 0, up to 1: so far the noise goes from the seed's towards that of variation_seed + i (-1: drawn); the seed
     * then does not count up. */
    double variation_strength;
    int64_t variation_seed;
    const char *sampler; /* any spelling; a label such as "DPM++ 2M Karras" also sets
                              the scheduler */
    const char
        *scheduler; /* any spelling; "automatic": what A1111 takes with the sampler */
    int count;
    const char *rng; /* "nv", "cpu" */
    const char *
        dialect; /* "a1111", "comfy": whose habits, where they differ; docs/sampling.md */
    double eta; /* fresh noise of the samplers that draw some; -1: the sampler's own */
    double s_churn, s_tmin,
        s_tmax;     /* noise before a step, between these sigmas; s_tmax 0: no end */
    double s_noise; /* all fresh noise is multiplied by it */
    double r;       /* dpmpp_sde: where the second look is, above 0 to 1 */
    int64_t ensd;   /* added to the seed for the noise of the steps */
    double
        s_min_uncond; /* below this sigma every second look is at the prompt alone, without guidance; 0: none */
    double rho; /* karras, polyexponential: the exponent of the schedule; 0: its own */
    int clip_skip; /* the text encoder ends with its last layer but clip_skip - 1; 0 is 1 */
    uint64_t
        budget_bytes; /* what it may take beyond what is resident; it is then drawn in the first way that keeps
                              to it, see engine_estimate; 0: no limit */
    int seamless; /* of ENGINE_SEAMLESS_X and _Y: the picture goes on at the other side; 0: it does not */
    const char *prediction; /* "eps", "v"; NULL: as the file says */
    const char *
        vae; /* the name of a file in the VAE folder; "none": the model's own; NULL, "automatic": engine_options.vae */
    bool vae_tiling; /* the VAE works in tiles even where there is room for the whole */
    int sizes
        [ENGINE_SIZES]; /* -1: the picture's own, not cropped; SDXL alone reads them */
    struct engine_start start;
    struct engine_hires hires;
    const struct engine_pass *pass; /* NULL */
};

/* The model's defaults, seed -1, count 1, rng "nv", no prompt, no picture to start from
 * (strength 0.75, mask blur 4, padding 32 if there will be one), no hires fix (strength 0.7 if there will be). */
void engine_job_defaults(const struct engine_model *model, struct engine_job *ret_job);
/* For a job that starts from a picture and was told no size: the picture's proportions, with as many pixels as the job
 * has so far. A file that cannot be read leaves the size as it is; engine_job_check says what is wrong with it. */
void engine_start_fit(struct engine_job *job);
/* "original", "fill", "latent noise", "latent nothing", or A1111's 0..3 for fill,
 * original, noise, nothing */
int engine_fill_parse(const char *name, enum engine_fill *ret,
                      struct err *err) MUST_CHECK;
/* Everything that can be said about a job without running it, but for its LoRAs. The model has the job's VAE then. */
int engine_job_check(struct engine_model *model, const struct engine_job *job,
                     struct err *err) MUST_CHECK;

/* Where nothing keeps to the job's budget, this is of the way that takes least: its peak says so. What the model has
 * loaded, another VAE too, it has afterwards. */
struct engine_estimate {
    uint64_t resident_bytes; /* packed weights, now */
    uint64_t peak_bytes;     /* resident, what this job still packs, and everything it
                                allocates while it runs */
    const char *
        way; /* that keeps to the budget: "whole", "apart", "released": the same picture, but for rounding;
                        "tiles", "small_tiles": nearly the same. Static. */
};

int engine_estimate(struct engine_model *model, const struct engine_job *job,
                    struct engine_estimate *ret_estimate, struct err *err) MUST_CHECK;

enum engine_phase {
    ENGINE_PHASE_ENCODE, /* LoRAs onto the weights, prompts into vectors */
    ENGINE_PHASE_SAMPLE,
    ENGINE_PHASE_DECODE,
    ENGINE_PHASE_UPSCALE,
};
/* "encode", "sample", "decode", "upscale" */
const char *engine_phase_name(enum engine_phase phase);

/* One of those that the prompts ask for. Lives only during the call. */
struct engine_lora {
    const char *name;
    double unet, text; /* strengths */
    size_t matched,
        unmatched; /* tensors of its file that change the model, and others */
    const char *first_unmatched; /* NULL: none */
};

/* A textual inversion that the prompts say. Lives only during the call. */
struct engine_embedding {
    const char *name;
    int vectors;
};

/* Everything in it lives only during the call. */
struct engine_image {
    int index; /* 0..count-1 */
    int64_t seed;
    int64_t variation_seed; /* -1: none */
    int width, height;      /* the job's; with only_masked the picture's own */
    const uint8_t *rgb;     /* [height, width, 3] */
    const char *parameters; /* A1111's text, also inside the PNG */
    const void *png;
    size_t png_bytes;
};

/* What is there after a step, a pixel for each latent pixel, or in the picture's size if it was decoded (preview_method).
 * Lives only during the call. */
struct engine_preview {
    int image, step, steps;
    int width, height;
    const uint8_t *rgb; /* [height, width, 3] */
    const void *png;
    size_t png_bytes;
};

struct engine_events {
    /* before the first phase, once for each */
    void (*on_lora)(void *user, const struct engine_lora *lora);
    /* before the first step, once for each */
    void (*on_embedding)(void *user, const struct engine_embedding *embedding);
    void (*on_phase)(void *user, enum engine_phase phase, int image);
    /* after step 1..steps of image 0..count-1 */
    void (*on_step)(void *user, int image, int step, int steps);
    /* Both or none: is a preview wanted after this step (not asked after the last one)? */
    bool (*wants_preview)(void *user, int image, int step, int steps);
    void (*on_preview)(void *user, const struct engine_preview *preview);
    /* false ends the job (the receiver is gone or cannot store it); reason in err, else
     * ERR_CANCELLED */
    bool (*on_image)(void *user, const struct engine_image *image, struct err *err);
    /* asked before every operation, in long ones every tenth of a second or so, from the calling thread; true ends the
     * job with ERR_CANCELLED */
    bool (*is_cancelled)(void *user);
    void *user;
};

/* Each callback may be NULL. */
int engine_generate(struct engine_model *model, const struct engine_job *job,
                    const struct engine_events *events, struct err *err) MUST_CHECK;

/* ---- a picture made larger ---- */

/* A network of the ESRGAN family, in whatever of its formats. */
struct engine_upscaler;

/* Opens the file and checks its tensors; its weights are packed by the first job. name: an absolute path, or a file's
 * in the upscaler folder, with or without its ending; one that is not there is ERR_INVALID of "upscaler". */
int engine_upscaler_open(struct engine_upscaler **ret, struct engine *engine,
                         const char *name, struct err *err) MUST_CHECK;
void engine_upscaler_close(struct engine_upscaler *upscaler); /* NULL is fine */

struct engine_upscaler_info {
    const char *name; /* the file's without its ending */
    int scale;        /* 4 */
    int blocks;       /* 23; 6: the quick ones for drawings */
    uint64_t parameters;
};

/* The name lives as long as the upscaler. */
void engine_upscaler_info(const struct engine_upscaler *upscaler,
                          struct engine_upscaler_info *ret_info);

#define ENGINE_MAX_FACTOR 8

struct engine_upscale {
    struct engine_file image;
    double factor;      /* 1..ENGINE_MAX_FACTOR; 0: the upscaler's own, 2 without one */
    const char *method; /* without an upscaler: "lanczos", "nearest" */
    int tile;    /* pixels of the picture that the network sees at once, 0: 192 */
    int overlap; /* of two tiles beside each other, at most half a tile; 0: 32 */
};

/* Checks the job, too. */
int engine_upscale_estimate(struct engine_upscaler *upscaler,
                            const struct engine_upscale *job,
                            struct engine_estimate *ret_estimate,
                            struct err *err) MUST_CHECK;
/* upscaler NULL: by the job's method alone. A network is run until the picture is large enough, three times at most
 * and while there is room for it; what is then too large or too small is resized by Lanczos. Transparency is
 * dropped. Tells the phase, each tile as a step, and the picture, whose seed is 0. */
int engine_upscale(struct engine_upscaler *upscaler, const struct engine_upscale *job,
                   const struct engine_events *events, struct err *err) MUST_CHECK;

#endif
