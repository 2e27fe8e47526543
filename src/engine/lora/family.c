/* family: the guess. The width of the text that cross-attention reads tells the families
 * apart, and it is in the file: the keys of attn2.to_k. Other architectures are known by
 * words that only their keys have; what a trainer wrote into the metadata comes last,
 * because people change it. */
#include "engine/lora/family.h"

#include "base/str.h"
#include "engine/lora/delta.h"

#include <string.h>

static const struct {
    int64_t context; /* channels of the text */
    const char *name;
} contexts[] = {
    {768, "SD 1.x"},
    {1024, "SD 2.x"},
    {2048, "SDXL"},
    {1280, "the SDXL refiner"},
};

static const struct {
    const char *word, *name;
} words[] = {
    {"single_transformer_blocks", "Flux"},
    {"double_blocks", "Flux"},
    {"joint_blocks", "SD 3"},
    {"lora_te2_", "SDXL"},
    {"text_encoder_2.", "SDXL"},
};

static const struct {
    const char *word, *name;
} unknown_kinds[] = {
    {".oft_R", "OFT as PEFT writes it (of inputs)"},
    {".oft_r", "OFT as PEFT writes it (of inputs)"},
    {".boft_R", "BOFT as PEFT writes it (of inputs)"},
    {".ia3_l", "IA3 as PEFT writes it"},
    {".vera_lambda_", "VeRA"},
    {".hra_u", "HRA"},
    {".fourierft_spectrum", "FourierFT"},
    {"lora_controlnet", "a Control-LoRA"},
    {"ip_adapter", "an IP-Adapter"},
    {"control_model", "a ControlNet"},
    {"controlnet_", "a ControlNet"},
};

const char *family_of_context(int64_t channels)
{
    for (size_t i = 0; i < sizeof(contexts) / sizeof(*contexts); i++)
        if (contexts[i].context == channels)
            return contexts[i].name;
    return NULL;
}

static const char *name_of(int64_t context)
{
    const char *name = family_of_context(context);

    return name ? name : "a model of another kind";
}

static bool reads_text(const char *stem, size_t len)
{
    return len > 4 && memmem(stem, len, "attn2", 5) &&
           (memcmp(stem + len - 4, "to_k", 4) == 0 ||
            memcmp(stem + len - 4, "to_v", 4) == 0);
}

/* 0: nothing in it reads text */
static int64_t lora_context(const struct lora_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++) {
        const struct lora_group *g = &groups->all[i];
        struct lora_delta delta;

        if (reads_text(g->stem, g->stem_len) && lora_delta_is_there(&g->parts) &&
            lora_delta_read(&delta, &g->parts, NULL, NULL) == 0 && delta.cols)
            return delta.cols;
    }
    return 0;
}

static int64_t base_context(const struct weights_file *base)
{
    for (size_t i = 0; i < weights_file_count(base); i++) {
        const struct weight *w = weights_file_at(base, i);

        if (w->rank == 2 && str_has_suffix(w->name, ".attn2.to_k.weight"))
            return w->dim[1];
    }
    return 0;
}

static const char *name_by_word(const struct lora_groups *groups)
{
    for (size_t w = 0; w < sizeof(words) / sizeof(*words); w++)
        for (size_t i = 0; i < groups->count; i++)
            if (memmem(groups->all[i].stem, groups->all[i].stem_len, words[w].word,
                       strlen(words[w].word)))
                return words[w].name;
    return NULL;
}

static const char *name_by_metadata(const struct weights_file *file)
{
    const char *name = weights_file_meta(file, "modelspec.architecture");

    return name ? name : weights_file_meta(file, "ss_base_model_version");
}

const char *lora_unknown_kind(const struct weights_file *file)
{
    for (size_t k = 0; k < sizeof(unknown_kinds) / sizeof(*unknown_kinds); k++)
        for (size_t i = 0; i < weights_file_count(file); i++)
            if (strstr(weights_file_at(file, i)->name, unknown_kinds[k].word))
                return unknown_kinds[k].name;
    return NULL;
}

const char *lora_family(const struct lora_groups *groups,
                        const struct weights_file *file, int64_t *ret_context)
{
    const char *name;

    *ret_context = lora_context(groups);
    name = *ret_context ? family_of_context(*ret_context) : name_by_word(groups);
    return name || *ret_context ? name : name_by_metadata(file);
}

void lora_family_explain(struct buf *sentence, const struct lora_groups *groups,
                         const struct weights_file *file,
                         const struct weights_file *base)
{
    int64_t context, wanted = base_context(base);
    const char *name = lora_family(groups, file, &context);

    if (context)
        name = name_of(context);
    if (!name || (context && context == wanted))
        return;
    buf_printf(sentence, ": it seems to be made for %.80s", name);
    if (context)
        buf_printf(sentence, " (it reads text of %lld channels)", (long long)context);
    if (wanted)
        buf_printf(sentence, ", the model is %s (%lld channels)", name_of(wanted),
                   (long long)wanted);
}
