/* sampling: the names of the samplers and the schedules, in every spelling that people bring along.
 * The engine walks by them, the server and the client check and list them: one table for all.
 *
 *   enum sampler sampler;
 *   enum scheduler scheduler = SCHEDULER_NORMAL;
 *   if (sampler_parse("DPM++ 2M SDE Karras", &sampler, &scheduler, err)) return -1;
 *   sampler_name(sampler)      "dpmpp_2m_sde", the word of Mysti's API
 *   sampler_label(sampler)     "DPM++ 2M SDE", AUTOMATIC1111's word, for people
 *
 * Plain tables, any thread. Failures: 400 invalid_value that lists what is known. */
#ifndef MYSTI_BASE_SAMPLING_H
#define MYSTI_BASE_SAMPLING_H

#include "base/err.h"

enum scheduler {
    SCHEDULER_NORMAL,
    SCHEDULER_SIMPLE,
    SCHEDULER_KARRAS,
    SCHEDULER_EXPONENTIAL,
    SCHEDULER_POLYEXPONENTIAL,
    SCHEDULER_SGM_UNIFORM,
    SCHEDULER_DDIM_UNIFORM,
    SCHEDULER_BETA,
    SCHEDULER_KL_OPTIMAL,
    SCHEDULER_AYS,
    SCHEDULER_TURBO,
    SCHEDULER_LINEAR_QUADRATIC,
    SCHEDULER_COUNT,
};

enum sampler {
    SAMPLER_EULER,
    SAMPLER_EULER_A,
    SAMPLER_HEUN,
    SAMPLER_DPM2,
    SAMPLER_DPM2_A,
    SAMPLER_DPM_FAST,
    SAMPLER_DPM_ADAPTIVE,
    SAMPLER_DPMPP_2S_A,
    SAMPLER_DPMPP_2M,
    SAMPLER_DPMPP_SDE,
    SAMPLER_DPMPP_2M_SDE,
    SAMPLER_DPMPP_2M_SDE_HEUN,
    SAMPLER_DPMPP_3M_SDE,
    SAMPLER_LMS,
    SAMPLER_DDIM,
    SAMPLER_DDIM_CFG_PP,
    SAMPLER_PLMS,
    SAMPLER_UNI_PC,
    SAMPLER_UNI_PC_BH2,
    SAMPLER_LCM,
    SAMPLER_TCD,
    SAMPLER_IPNDM,
    SAMPLER_DEIS,
    SAMPLER_RESTART,
    SAMPLER_ER_SDE,
    SAMPLER_COUNT,
};

/* Where AUTOMATIC1111 and ComfyUI do the same thing differently. */
enum dialect { DIALECT_A1111, DIALECT_COMFY };

/* All names, as constants for help texts. */
#define SAMPLER_NAMES                                                                  \
    "euler, euler_a, heun, dpm2, dpm2_a, dpm_fast, dpm_adaptive, dpmpp_2s_a, "         \
    "dpmpp_2m, dpmpp_sde, dpmpp_2m_sde, dpmpp_2m_sde_heun, dpmpp_3m_sde, lms, ddim, ddim_cfg_pp, plms, "    \
    "uni_pc, uni_pc_bh2, lcm, tcd, ipndm, deis, restart, er_sde"
#define SCHEDULER_NAMES                                                                \
    "normal, simple, karras, exponential, polyexponential, sgm_uniform, "              \
    "ddim_uniform, beta, kl_optimal, ays, turbo, linear_quadratic"

/* Any spelling of Mysti, ComfyUI, AUTOMATIC1111 or stable-diffusion.cpp, case, spaces and punctuation free. A
 * label such as "DPM++ 2M Karras" also names a scheduler: then *ret_scheduler is set, else it is left alone. An
 * unknown name is an error that lists the known ones. */
int sampler_parse(const char *name, enum sampler *ret, enum scheduler *ret_scheduler,
                  struct err *err) MUST_CHECK;
const char *sampler_name(enum sampler sampler);
const char *sampler_label(enum sampler sampler);
/* The scheduler that AUTOMATIC1111's "Automatic" means for this sampler. */
enum scheduler sampler_scheduler(enum sampler sampler);

/* "Automatic" is no scheduler but a question to sampler_scheduler(). */
int scheduler_parse(const char *name, enum scheduler *ret, struct err *err) MUST_CHECK;
const char *scheduler_name(enum scheduler scheduler);  /* "karras" */
const char *scheduler_label(enum scheduler scheduler); /* "Karras" */

int dialect_parse(const char *name, enum dialect *ret, struct err *err) MUST_CHECK;
const char *dialect_name(enum dialect dialect); /* "a1111", "comfy" */

#endif
