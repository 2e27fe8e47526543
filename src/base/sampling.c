/* Other programs write one sampler in many ways ("DPM++ 2M Karras", "dpm++2m", "k_dpmpp_2m", "dpmpp_2m_sde_gpu").
 * A name is folded to lower case letters and digits, '+' counting as 'p'; what says nothing about the method goes
 * (a leading "k", a trailing "gpu"), "ancestral" becomes "a"; then names, labels and the few aliases are compared.
 * If nothing fits, a scheduler's name is split off the end.
 *
 * If you add a sampler: an enum value, a word in SAMPLER_NAMES, a row here, its move in engine/sampler, a line in docs/sampling.md, a
 * reference in tests/unit/sampler/make_vectors.py. */
#include "base/sampling.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    const char *label;
    enum scheduler automatic;
} samplers[SAMPLER_COUNT] = {
    [SAMPLER_EULER] = {"euler", "Euler", SCHEDULER_NORMAL},
    [SAMPLER_EULER_A] = {"euler_a", "Euler a", SCHEDULER_NORMAL},
    [SAMPLER_HEUN] = {"heun", "Heun", SCHEDULER_NORMAL},
    [SAMPLER_DPM2] = {"dpm2", "DPM2", SCHEDULER_KARRAS},
    [SAMPLER_DPM2_A] = {"dpm2_a", "DPM2 a", SCHEDULER_KARRAS},
    [SAMPLER_DPM_FAST] = {"dpm_fast", "DPM fast", SCHEDULER_NORMAL},
    [SAMPLER_DPM_ADAPTIVE] = {"dpm_adaptive", "DPM adaptive", SCHEDULER_NORMAL},
    [SAMPLER_DPMPP_2S_A] = {"dpmpp_2s_a", "DPM++ 2S a", SCHEDULER_KARRAS},
    [SAMPLER_DPMPP_2M] = {"dpmpp_2m", "DPM++ 2M", SCHEDULER_KARRAS},
    [SAMPLER_DPMPP_SDE] = {"dpmpp_sde", "DPM++ SDE", SCHEDULER_KARRAS},
    [SAMPLER_DPMPP_2M_SDE] = {"dpmpp_2m_sde", "DPM++ 2M SDE", SCHEDULER_EXPONENTIAL},
    [SAMPLER_DPMPP_2M_SDE_HEUN] = {"dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun",
                                   SCHEDULER_EXPONENTIAL},
    [SAMPLER_DPMPP_3M_SDE] = {"dpmpp_3m_sde", "DPM++ 3M SDE", SCHEDULER_EXPONENTIAL},
    [SAMPLER_LMS] = {"lms", "LMS", SCHEDULER_NORMAL},
    [SAMPLER_DDIM] = {"ddim", "DDIM", SCHEDULER_DDIM_UNIFORM},
    [SAMPLER_DDIM_CFG_PP] = {"ddim_cfg_pp", "DDIM CFG++", SCHEDULER_DDIM_UNIFORM},
    [SAMPLER_PLMS] = {"plms", "PLMS", SCHEDULER_DDIM_UNIFORM},
    [SAMPLER_UNI_PC] = {"uni_pc", "UniPC", SCHEDULER_NORMAL},
    [SAMPLER_UNI_PC_BH2] = {"uni_pc_bh2", "UniPC bh2", SCHEDULER_NORMAL},
    [SAMPLER_LCM] = {"lcm", "LCM", SCHEDULER_SGM_UNIFORM},
    [SAMPLER_TCD] = {"tcd", "TCD", SCHEDULER_SGM_UNIFORM},
    [SAMPLER_IPNDM] = {"ipndm", "iPNDM", SCHEDULER_NORMAL},
    [SAMPLER_DEIS] = {"deis", "DEIS", SCHEDULER_NORMAL},
    [SAMPLER_RESTART] = {"restart", "Restart", SCHEDULER_KARRAS},
    [SAMPLER_ER_SDE] = {"er_sde", "ER SDE", SCHEDULER_NORMAL},
};

static const struct {
    const char *folded;
    enum sampler sampler;
} sampler_aliases[] = {
    {"eulercfgpp", SAMPLER_DDIM_CFG_PP},    {"ddimtrailing", SAMPLER_DDIM},
    {"dpmpp2msdebt", SAMPLER_DPMPP_2M_SDE}, {"restartsampler", SAMPLER_RESTART},
    {"linearmultistep", SAMPLER_LMS},       {"dpmad", SAMPLER_DPM_ADAPTIVE},
};

static const struct {
    const char *name;
    const char *label;
} schedulers[SCHEDULER_COUNT] = {
    [SCHEDULER_NORMAL] = {"normal", "Normal"},
    [SCHEDULER_SIMPLE] = {"simple", "Simple"},
    [SCHEDULER_KARRAS] = {"karras", "Karras"},
    [SCHEDULER_EXPONENTIAL] = {"exponential", "Exponential"},
    [SCHEDULER_POLYEXPONENTIAL] = {"polyexponential", "Polyexponential"},
    [SCHEDULER_SGM_UNIFORM] = {"sgm_uniform", "SGM Uniform"},
    [SCHEDULER_DDIM_UNIFORM] = {"ddim_uniform", "DDIM"},
    [SCHEDULER_BETA] = {"beta", "Beta"},
    [SCHEDULER_KL_OPTIMAL] = {"kl_optimal", "KL Optimal"},
    [SCHEDULER_AYS] = {"ays", "Align Your Steps"},
    [SCHEDULER_TURBO] = {"turbo", "Turbo"},
    [SCHEDULER_LINEAR_QUADRATIC] = {"linear_quadratic", "Linear Quadratic"},
};

static const struct {
    const char *folded;
    enum scheduler scheduler;
} scheduler_aliases[] = {
    {"uniform", SCHEDULER_NORMAL},       {"discrete", SCHEDULER_NORMAL},
    {"sdturbo", SCHEDULER_TURBO},        {"lcm", SCHEDULER_SGM_UNIFORM},
    {"trailing", SCHEDULER_SGM_UNIFORM},
};

static void fold(const char *name, char *ret, size_t size)
{
    size_t n = 0;

    for (; *name && n + 1 < size; name++) {
        if (*name == '+')
            ret[n++] = 'p';
        else if (isalnum((unsigned char)*name))
            ret[n++] = (char)tolower((unsigned char)*name);
    }
    ret[n] = '\0';
}

static bool take_end(char *text, const char *end, const char *instead)
{
    size_t len = strlen(text), n = strlen(end);

    if (len <= n || strcmp(text + len - n, end) != 0)
        return false;
    memcpy(text + len - n, instead, strlen(instead) + 1); /* never longer than end */
    return true;
}

static int find_folded(const char *folded, enum sampler *ret)
{
    char name[64], label[64];

    for (unsigned i = 0; i < SAMPLER_COUNT; i++) {
        fold(samplers[i].name, name, sizeof(name));
        fold(samplers[i].label, label, sizeof(label));
        if (strcmp(folded, name) == 0 || strcmp(folded, label) == 0) {
            *ret = (enum sampler)i;
            return 0;
        }
    }
    for (unsigned i = 0; i < sizeof(sampler_aliases) / sizeof(sampler_aliases[0]);
         i++) {
        if (strcmp(folded, sampler_aliases[i].folded) == 0) {
            *ret = sampler_aliases[i].sampler;
            return 0;
        }
    }
    return -1;
}

static int find_sampler(const char *folded, enum sampler *ret)
{
    char plain[64];

    memcpy(plain, folded, strlen(folded) + 1);
    (void)take_end(plain, "gpu", "");
    (void)take_end(plain, "ancestral", "a");
    if (find_folded(plain, ret) == 0)
        return 0;
    return plain[0] == 'k' ? find_folded(plain + 1, ret) : -1;
}

static int find_scheduler(const char *folded, enum scheduler *ret)
{
    char name[64], label[64];

    for (unsigned i = 0; i < SCHEDULER_COUNT; i++) {
        fold(schedulers[i].name, name, sizeof(name));
        fold(schedulers[i].label, label, sizeof(label));
        if (strcmp(folded, name) == 0 || strcmp(folded, label) == 0) {
            *ret = (enum scheduler)i;
            return 0;
        }
    }
    for (unsigned i = 0; i < sizeof(scheduler_aliases) / sizeof(scheduler_aliases[0]);
         i++) {
        if (strcmp(folded, scheduler_aliases[i].folded) == 0) {
            *ret = scheduler_aliases[i].scheduler;
            return 0;
        }
    }
    return -1;
}

int sampler_parse(const char *name, enum sampler *ret, enum scheduler *ret_scheduler,
                  struct err *err)
{
    char folded[64], start[64];

    fold(name, folded, sizeof(folded));
    if (find_sampler(folded, ret) == 0)
        return 0;
    for (size_t at = 1; at < strlen(folded); at++) {
        enum sampler sampler;
        enum scheduler scheduler;

        memcpy(start, folded, at);
        start[at] = '\0';
        if (find_sampler(start, &sampler) == 0 &&
            find_scheduler(folded + at, &scheduler) == 0) {
            *ret = sampler;
            *ret_scheduler = scheduler;
            return 0;
        }
    }
    return err_set_param(err, ERR_INVALID, "sampler",
                         "unknown sampler '%.80s': known are %s", name, SAMPLER_NAMES);
}

int scheduler_parse(const char *name, enum scheduler *ret, struct err *err)
{
    char folded[64];

    fold(name, folded, sizeof(folded));
    if (find_scheduler(folded, ret) == 0)
        return 0;
    return err_set_param(err, ERR_INVALID, "scheduler",
                         "unknown scheduler '%.80s': known are %s", name,
                         SCHEDULER_NAMES);
}

int dialect_parse(const char *name, enum dialect *ret, struct err *err)
{
    if (strcasecmp(name, "a1111") == 0)
        *ret = DIALECT_A1111;
    else if (strcasecmp(name, "comfy") == 0)
        *ret = DIALECT_COMFY;
    else
        return err_set_param(err, ERR_INVALID, "dialect",
                             "unknown dialect '%.80s': known are a1111 and comfy",
                             name);
    return 0;
}

const char *dialect_name(enum dialect dialect)
{
    return dialect == DIALECT_COMFY ? "comfy" : "a1111";
}

enum scheduler sampler_scheduler(enum sampler sampler)
{
    return samplers[sampler].automatic;
}

const char *sampler_name(enum sampler sampler)
{
    return samplers[sampler].name;
}

const char *sampler_label(enum sampler sampler)
{
    return samplers[sampler].label;
}

const char *scheduler_name(enum scheduler scheduler)
{
    return schedulers[scheduler].name;
}

const char *scheduler_label(enum scheduler scheduler)
{
    return schedulers[scheduler].label;
}
