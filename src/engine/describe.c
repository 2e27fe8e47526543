/* describe: what a picture says of itself, in AUTOMATIC1111's words. */
#include "engine/image/parameters.h"
#include "engine/run.h"
#include "engine/start.h"
#include "engine/vaes.h"

/* What AUTOMATIC1111 writes of the sampling where it is not what it would be by itself, under its words for it. */
static int count_numbers(const struct run *run, struct parameters_number ret[10])
{
    const struct engine_job *job = run->job;
    struct sampler_options own = sampler_options(run->plan.sampler, run->plan.dialect);
    bool has_rho = run->plan.scheduler == SCHEDULER_KARRAS ||
                   run->plan.scheduler == SCHEDULER_POLYEXPONENTIAL;
    const struct {
        struct parameters_number number;
        bool is_told;
    } all[] = {
        {{sampler_has_timesteps(run->plan.sampler) ? "Eta DDIM" : "Eta", job->eta},
         job->eta >= 0 && job->eta != own.eta},
        {{"ENSD", (double)job->ensd},
         job->ensd > 0 && run->plan.dialect == DIALECT_A1111},
        {{"Sigma churn", job->s_churn}, job->s_churn > 0},
        {{"Sigma tmin", job->s_tmin}, job->s_tmin > 0},
        {{"Sigma tmax", job->s_tmax}, job->s_tmax > 0},
        {{"Sigma noise", job->s_noise}, job->s_noise != 1},
        {{"NGMS", job->s_min_uncond}, job->s_min_uncond > 0},
        {{"Schedule rho", job->rho}, job->rho > 0 && has_rho},
    };
    int count = 0;

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i].is_told)
            ret[count++] = all[i].number;
    return count;
}

void run_describe(const struct run *run, const struct engine_image *image,
                  struct buf *ret_text)
{
    static const char *const tilings[] = {NULL, "X", "Y", "True"};
    const struct engine_job *job = run->job->pass ? run->job->pass->whole : run->job;
    struct parameters_number numbers[10];
    struct parameters parameters = {.numbers = numbers,
                                    .number_count = count_numbers(run, numbers),
                                    .prompt = job->prompt,
                                    .negative_prompt = job->negative_prompt,
                                    .steps = (unsigned)job->steps,
                                    .sampler = sampler_label(run->plan.sampler),
                                    .scheduler = scheduler_label(run->plan.scheduler),
                                    .cfg_scale = job->cfg_scale,
                                    .seed = image->seed,
                                    .variation_seed = image->variation_seed,
                                    .variation_strength = job->variation_strength,
                                    .width = (unsigned)job->width,
                                    .height = (unsigned)job->height,
                                    .model = run->model->checkpoint->name,
                                    .vae = vae_name(run->model),
                                    .clip_skip = job->clip_skip,
                                    .tiling = tilings[job->seamless & 3],
                                    .has_start = run->start && !run->job->pass,
                                    .strength = job->start.strength,
                                    .has_mask = run->start && run->start->mask,
                                    .mask_blur = job->start.mask_blur,
                                    .rng = run->plan.rng == NOISE_CPU ? "CPU" : "NV",
                                    .version = "Mysti " MYSTI_VERSION};

    if (run->job->pass) {
        parameters.hires_width = (unsigned)run->job->width;
        parameters.hires_height = (unsigned)run->job->height;
        parameters.hires_scale = job->hires.scale;
        parameters.hires_steps = (unsigned)job->hires.steps;
        parameters.hires_upscaler = run->job->pass->upscaler;
        parameters.strength = job->hires.strength;
    }
    parameters_format(&parameters, ret_text);
}
