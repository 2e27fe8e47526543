/* LoRA files over a small base: refused with a sentence, or every weight that one touches can be changed, to finite
 * numbers or to an error. */
#include "engine/lora/lora.h"
#include "base/buf.h"
#include "engine/files/reader.h"

#include "fuzz.h"

#include <math.h>
#include <stdlib.h>

enum { VALUES_MAX = 9 * 10 * 9 };

#define UNET "model.diffusion_model.input_blocks."
#define BLOCK "1.1.transformer_blocks.0."

/* As much of a U-Net and a text encoder as their family is told by */
static const struct {
    const char *name, *shape;
    int count;
} tensors[] = {
    {UNET "0.0.weight", "9,4,3,3", 324},
    {UNET "1.0.in_layers.0.weight", "10", 10},
    {UNET "1.0.in_layers.2.weight", "9,10,3,3", 810},
    {UNET "1.0.in_layers.2.bias", "9", 9},
    {UNET "1.1.proj_in.weight", "9,10,1,1", 90},
    {UNET BLOCK "attn1.to_q.weight", "9,10", 90},
    {UNET BLOCK "attn1.to_v.weight", "8,6", 48},
    {UNET BLOCK "attn2.to_k.weight", "9,6", 54},
    {UNET "2.0.op.weight", "9,10,3,3", 810},
    {UNET "3.0.in_layers.0.weight", "10", 10},
    {"cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
     "9,10", 90},
};

/* Not freed: it lives as long as the process. */
static struct weights_file *base_open(void)
{
    static struct buf file;
    struct buf header = {0}, data = {0};
    struct weights_file *base;
    uint64_t length;

    for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++) {
        size_t at = data.len;

        for (int k = 0; k < tensors[i].count; k++)
            buf_append(&data, &(float){(float)k / VALUES_MAX}, sizeof(float));
        buf_printf(
            &header,
            "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
            i ? "," : "{", tensors[i].name, tensors[i].shape, at, data.len);
    }
    buf_append_str(&header, "}");
    length = header.len;
    buf_append(&file, &length, sizeof(length));
    buf_append(&file, header.data, header.len);
    buf_append(&file, data.data, data.len);
    buf_release(&header);
    buf_release(&data);
    if (weights_memory_open(&base, file.data, file.len, NULL))
        abort();
    return base;
}

static void change(const struct lora *lora, const struct weight *w)
{
    struct lora_strength strength = {.unet = 0.75, .text = 0.5};
    float values[VALUES_MAX];
    struct err err = {0};
    size_t count = weight_count(w);

    weight_to_f32(w, 0, count, values);
    if (lora_add_delta(lora, w, strength, NULL, values, &err)) {
        if (!err.message[0])
            abort();
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct weights_file *base;
    struct weights_file *file;
    struct lora *lora;
    struct err err = {0};

    if (!base)
        base = base_open();
    if (weights_memory_open(&file, data, size, NULL))
        return 0;
    if (lora_read(&lora, file, base, &err)) {
        if (!err.message[0] || err.code == ERR_NONE)
            abort();
        return 0;
    }
    if (!lora_matched(lora))
        abort();
    for (size_t i = 0; i < lora_unmatched(lora); i++)
        if (!lora_unmatched_name(lora, i)[0])
            abort();
    for (size_t i = 0; i < weights_file_count(base); i++)
        if (lora_touches(lora, weights_file_at(base, i)))
            change(lora, weights_file_at(base, i));
    lora_close(lora);
    return 0;
}
