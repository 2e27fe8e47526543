/* request: a picture job as it came in JSON. What was left out stays open until the model's defaults are known. */
#ifndef MYSTI_SD_WORKER_REQUEST_H
#define MYSTI_SD_WORKER_REQUEST_H

#include "base/buf.h"
#include "engine/engine.h"

struct request {
    char *prompt;
    char *negative_prompt; /* NULL: left out, as everything below that is < 0 or NULL */
    char *sampler;
    char *scheduler;
    char *rng, *dialect, *seamless, *prediction, *vae;
    double eta, s_churn, s_tmin, s_tmax, s_noise, r, s_min_uncond, rho;
    int64_t ensd, clip_skip;
    int width, height, steps, count;
    int sizes[ENGINE_SIZES];
    double cfg_scale;
    int64_t seed;
    int64_t *seeds; /* [count]; NULL: none */
    int64_t variation_seed;
    double variation_strength;
    /* the picture to begin with: absolute paths, read when the job runs */
    char *image, *mask, *fill;
    double strength, mask_blur;
    int padding;
    bool is_cropped, only_masked, vae_tiling;
    /* the picture is not changed but made larger: a method ("lanczos", "nearest") or an upscaler's name; NULL: not */
    char *upscaler;
    double factor;
    struct engine_hires hires; /* .upscaler is the request's; strength -1: left out */
    char *hires_upscaler;
    int64_t budget_bytes; /* -1: none */
    int64_t preview_ms;   /* at most one preview in so long a time; -1: none */
};

/* The body of /internal/generate and /internal/estimate; the prompt is optional for an estimate. Fails with
 * the field at fault; release it then, too. */
enum request_kind { REQUEST_GENERATE, REQUEST_ESTIMATE };
int request_parse(struct request *ret, enum request_kind kind, const char *json,
                  size_t len, struct err *err) MUST_CHECK;
/* The engine's job: the model's defaults overlaid with what was asked for. Borrows the request's strings. */
void request_job(const struct request *r, const struct engine_model *model,
                 struct engine_job *ret_job);
/* The files of the picture and its mask, read into buffers that the job then borrows. They are files because a job
 * that is done again later still needs them, and because the two processes share a disk: no copy travels. Without
 * width and height the job gets the picture's proportions. */
struct request_files {
    struct buf image, mask;
};
int request_read_files(const struct request *r, struct request_files *ret,
                       struct engine_job *job, struct err *err) MUST_CHECK;
void request_files_release(struct request_files *f);
void request_release(struct request *r);

/* A request to make a picture larger, with its file and its network. Release it also when it could not be opened. */
struct upscale_request {
    struct engine_upscaler *upscaler; /* NULL: a method alone */
    struct buf image;
    struct engine_upscale job;
};
int upscale_request_open(struct upscale_request *ret, const struct request *r,
                         struct engine *engine, struct err *err) MUST_CHECK;
void upscale_request_release(struct upscale_request *u);

#endif
