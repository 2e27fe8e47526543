/* job: one picture request on its way through the queue. Every dialect of picture request (today OpenAI's)
 * becomes a struct image_request at the edge; the queue turns it into a struct job.
 *
 * JOB_STEPS is the one vocabulary for where a job is: the enum, the word in the log, the `phase` in REST answers
 * and events, and the label that a page shows. A durable queue stores the word. If you add a step, add it to
 * `phase` in docs/openapi.yaml too. */
#ifndef MYSTI_SERVER_QUEUE_JOB_H
#define MYSTI_SERVER_QUEUE_JOB_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, word, label */
#define JOB_STEPS(X)                                                                   \
    X(WAITING, "waiting", "Waiting for its turn...")                                   \
    X(PREPARING, "preparing", "Loading the model...")                                  \
    X(ENCODING, "encoding", "Reading the prompt...")                                   \
    X(SAMPLING, "sampling", "Sampling...")                                             \
    X(DECODING, "decoding", "VAE Decoding...")                                         \
    X(UPSCALING, "upscaling", "Upscaling...")                                          \
    X(SAVING, "saving", "Saving...")                                                   \
    X(DONE, "done", "Done")                                                            \
    X(FAILED, "failed", "Failed")                                                      \
    X(CANCELLED, "cancelled", "Cancelled")

enum job_step {
#define X(name, word, label) JOB_##name,
    JOB_STEPS(X)
#undef X
};

const char *job_step_word(enum job_step step);
const char *job_step_label(enum job_step step);

/* The picture to begin with. */
struct image_start {
    char *image,
        *mask;  /* absolute paths of files that live as long as the job; NULL: none */
    char *fill; /* the worker's word; NULL: original */
    double strength, mask_blur; /* -1: the worker's */
    int padding;                /* -1: the worker's */
    bool is_cropped, only_masked;
};

/* A picture made larger instead of drawn: the one that `start` begins with. */
struct image_upscale {
    char *upscaler; /* "lanczos", "nearest", or a name in the upscaler folder; NULL: it
                       is drawn */
    double factor;  /* 0: the upscaler's own */
};

/* Drawn once more, larger. scale, width and height 0: it is not. */
struct image_hires {
    double scale;
    int width, height; /* of the result; one of them may be 0 */
    char
        *upscaler; /* "latent", "latent-nearest", or as image_upscale's; NULL: latent */
    int steps;     /* 0: as many as the first time */
    double strength; /* -1: the worker's */
};

/* "original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width" */
enum { IMAGE_SIZES = 6 };
extern const char *const image_size_names[IMAGE_SIZES];

/* What is to be drawn. Zero (or what the comment says) leaves the choice to the model. All text is UTF-8 and
 * owned by the struct. */
struct image_request {
    char *prompt;          /* never empty, but for a picture that is made larger */
    char *negative_prompt; /* NULL: none */
    char *model_path;      /* absolute; NULL: the active model */
    char *sampler;         /* the worker's word, "dpmpp_2m"; NULL: the model's */
    char *scheduler;       /* "normal", "karras"; NULL: the model's */
    char *dialect;         /* "a1111", "comfy"; NULL: a1111 */
    char *rng;             /* "nv", "cpu"; NULL: nv */
    char *seamless;        /* "x", "y", "both"; NULL: none */
    double eta, s_churn, s_tmin, s_tmax, s_noise, r; /* -1: the sampler's own */
    double s_min_uncond, rho;                        /* -1: none; the schedule's own */
    int64_t ensd;                                    /* -1: none */
    int64_t clip_skip;                               /* -1: none */
    char *prediction;                                /* "eps", "v"; NULL: the model's */
    char *vae;                  /* a file's name; NULL: the model's own */
    bool vae_tiling;            /* even where there is memory for the whole */
    int64_t sizes[IMAGE_SIZES]; /* that SDXL is told; -1: the picture's own */
    int width;                  /* pixels, a multiple of 8; 0: the model's */
    int height;
    int steps;        /* 0: the model's */
    int count;        /* pictures, at least 1 */
    double cfg_scale; /* -1: the model's */
    int64_t seed;     /* of the first picture, the next ones count up; -1: random */
    int64_t *seeds;   /* [count], each picture's own; NULL: none */
    double
        variation_strength; /* -1: none. Above 0 the seed stays and variation_seed counts up. */
    int64_t variation_seed; /* -1: random */
    struct image_start start;
    struct image_upscale upscale;
    struct image_hires hires;
};

#define IMAGE_REQUEST_DEFAULT                                                          \
    {                                                                                  \
        .count = 1, .cfg_scale = -1, .seed = -1, .variation_strength = -1,             \
        .variation_seed = -1, .eta = -1, .s_churn = -1, .s_tmin = -1, .s_tmax = -1,    \
        .s_noise = -1, .r = -1, .s_min_uncond = -1, .rho = -1, .ensd = -1,             \
        .clip_skip = -1, .sizes = {-1, -1, -1, -1, -1, -1}, .hires = {.strength = -1}, \
        .start = {                                                                     \
            .strength = -1,                                                            \
            .mask_blur = -1,                                                           \
            .padding = -1                                                              \
        }                                                                              \
    }

void image_request_release(struct image_request *r);
/* As it is kept on disk, and back. New references and new text. */
json_t *image_request_json(const struct image_request *r);
int image_request_from_json(const json_t *o, struct image_request *ret,
                            struct err *err) MUST_CHECK;

/* Those from picture `first` on; only where there are any. New reference. */
json_t *image_request_seeds(const struct image_request *r, int first);

/* The words and numbers of the sampling that are given, under the names that the worker knows, too. */
void image_request_put_sampling(json_t *o, const struct image_request *r);
/* "start", "upscale" and "hires", as the worker takes them; nothing when there is none */
void image_request_put_start(json_t *o, const struct image_request *r);
void image_request_put_upscale(json_t *o, const struct image_request *r);
void image_request_put_hires(json_t *o, const struct image_request *r);

/* A finished picture. Text and bytes are the queue's and good until the callback returns. */
struct job_picture {
    int index; /* 0 ... count-1 */
    int64_t seed;
    int width;
    int height;
    const unsigned char *png;
    size_t size;
    const char *file;             /* its name in the output folder; NULL: not saved */
    const struct err *save_error; /* why not, or NULL */
    /* What it was drawn with: "loras" [{name, text, unet, matched, unmatched, first_unmatched}] and "embeddings" [{name,
     * vectors}], each where there is one; NULL: neither */
    json_t *drawn_with;
};

/* Where a job is, for clients. */
struct job_progress {
    const char *id;
    enum job_step step;
    int position; /* jobs before it; 0: it is being worked on */
    int image;    /* the picture being drawn, from 0 */
    int images;
    int sample_step; /* 0 before the first one is done */
    int sample_steps;
    int64_t eta_ms;   /* of this picture's sampling, or until its turn; -1: not known */
    uint64_t time_ms; /* since it was begun; 0 while it waits */
    uint64_t wait_ms; /* that it has waited for its turn */
    const char *model; /* absolute path; NULL: the active one */
    const char *client;
    char detail
        [160]; /* while it waits or prepares: "loading starter-painter.safetensors" */
};

#endif
