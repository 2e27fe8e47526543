#include "server/queue/job.h"

#include <stdlib.h>

const char *job_step_word(enum job_step step)
{
    static const char *const words[] = {
#define X(name, word, label) word,
        JOB_STEPS(X)
#undef X
    };
    return words[step];
}

const char *job_step_label(enum job_step step)
{
    static const char *const labels[] = {
#define X(name, word, label) label,
        JOB_STEPS(X)
#undef X
    };
    return labels[step];
}

void image_request_release(struct image_request *r)
{
    free(r->prompt);
    free(r->negative_prompt);
    free(r->model_path);
    free(r->sampler);
    free(r->scheduler);
    *r = (struct image_request)IMAGE_REQUEST_DEFAULT;
}
