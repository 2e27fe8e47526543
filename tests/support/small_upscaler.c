#include "small_upscaler.h"
#include "torch_file.h"

#include "base/buf.h"
#include "base/mem.h"

#include "unit.h"

#include <math.h>
#include <unistd.h>

enum { CONVS = 5, PARTS = 3, NAME_MAX_BYTES = 100 };

/* what was left open */
static struct small_upscaler whole(const struct small_upscaler *options)
{
    struct small_upscaler o = *options;

    o.width = o.width ? o.width : 8;
    o.growth = o.growth ? o.growth : 4;
    o.blocks = o.blocks ? o.blocks : 1;
    o.doublings = o.doublings < 0 ? 0 : o.doublings ? o.doublings : 2;
    o.shuffle = o.shuffle ? o.shuffle : 1;
    o.scale = o.scale ? o.scale : 4;
    o.prefix = o.prefix ? o.prefix : "";
    return o;
}

/* ---- the numbers ---- */

static double hashed(uint32_t seed, uint32_t i)
{
    uint32_t x = i * 0x9E3779B9U + seed * 0x7FEB352DU + 1;

    x = (x ^ x >> 16) * 0x85EBCA6BU;
    x = (x ^ x >> 13) * 0xC2B2AE35U;
    x ^= x >> 16;
    return (double)(x >> 8) / 8388608.0 - 1;
}

static void add_layer(struct small_layers *l, int out, int in)
{
    struct small_layer layer = {.out = out, .in = in};
    uint32_t count = (uint32_t)(out * in * 9), seed = (uint32_t)l->count;

    layer.weight = mem_alloc(count * sizeof(float));
    layer.bias = mem_alloc((size_t)out * sizeof(float));
    for (uint32_t i = 0; i < count; i++) /* keeps the size of what goes through */
        layer.weight[i] = (float)(hashed(seed, i) * sqrt(3.0 / (9 * in)));
    for (int i = 0; i < out; i++)
        layer.bias[i] = (float)(0.1 * hashed(seed + 1000, (uint32_t)i));
    l->layers = mem_realloc(l->layers, (l->count + 1) * sizeof(*l->layers));
    l->layers[l->count++] = layer;
}

static void add_slopes(struct small_layers *l)
{
    struct small_layer *last = &l->layers[l->count - 1];

    last->slopes = mem_alloc((size_t)last->out * sizeof(float));
    for (int i = 0; i < last->out; i++) /* some turn the sign */
        last->slopes[i] = (float)(0.4 * hashed((uint32_t)l->count + 2000, (uint32_t)i));
}

static struct small_layers compact_layers(const struct small_upscaler *o)
{
    struct small_layers l = {0};

    add_layer(&l, o->width, 3);
    add_slopes(&l);
    for (int i = 0; i < o->blocks; i++) {
        add_layer(&l, o->width, o->width);
        add_slopes(&l);
    }
    add_layer(&l, 3 * o->scale * o->scale, o->width);
    for (int i = 0; i < l.layers[l.count - 1].out * l.layers[l.count - 1].in * 9; i++)
        l.layers[l.count - 1].weight[i] *= 0.2F; /* a little of what is added */
    return l;
}

struct small_layers small_upscaler_layers(const struct small_upscaler *options)
{
    struct small_upscaler o = whole(options);
    struct small_layers l = {0};
    struct small_layer *last;

    if (o.names == NAMES_COMPACT)
        return compact_layers(&o);
    add_layer(&l, o.width, 3 * o.shuffle * o.shuffle);
    for (int i = 0; i < o.blocks * PARTS; i++)
        for (int conv = 0; conv < CONVS; conv++)
            add_layer(&l, conv == CONVS - 1 ? o.width : o.growth,
                      o.width + conv * o.growth);
    for (int i = 0; i < 1 + o.doublings + 1; i++)
        add_layer(&l, o.width, o.width);
    add_layer(&l, 3, o.width);
    last = &l.layers[l.count - 1];
    for (int i = 0; i < 3; i++)
        last->bias[i] += 0.5F; /* in the middle of what a picture can hold */
    if (o.is_broken)
        last->bias[1] = NAN;
    return l;
}

void small_layers_free(struct small_layers *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->layers[i].weight);
        free(l->layers[i].bias);
        free(l->layers[i].slopes);
    }
    free(l->layers);
}

/* ---- the names ---- */

static void name_in_block(const struct small_upscaler *o, int block, int part, int conv,
                          char *ret)
{
    if (o->names == NAMES_REAL_ESRGAN)
        snprintf(ret, NAME_MAX_BYTES, "body.%d.rdb%d.conv%d", block, part, conv);
    else if (o->names == NAMES_ESRGAN)
        snprintf(ret, NAME_MAX_BYTES, "RRDB_trunk.%d.RDB%d.conv%d", block, part, conv);
    else
        snprintf(ret, NAME_MAX_BYTES, "model.1.sub.%d.RDB%d.conv%d.0", block, part,
                 conv);
}

/* index: behind the blocks */
static void name_behind(const struct small_upscaler *o, int index, char *ret)
{
    static const char *const words[][4] = {
        {"conv_body", "conv_up", "conv_hr", "conv_last"},
        {"trunk_conv", "upconv", "HRconv", "conv_last"}};

    if (o->names == NAMES_NUMBERED && index == 0)
        snprintf(ret, NAME_MAX_BYTES, "model.1.sub.%d", o->blocks);
    else if (o->names == NAMES_NUMBERED)
        snprintf(ret, NAME_MAX_BYTES, "model.%d",
                 index <= o->doublings ? 3 * index
                                       : 3 * o->doublings + 2 * (index - o->doublings));
    else if (index > 0 && index <= o->doublings)
        snprintf(ret, NAME_MAX_BYTES, "%s%d", words[o->names][1], index);
    else
        snprintf(ret, NAME_MAX_BYTES, "%s",
                 words[o->names][index ? index - o->doublings + 1 : 0]);
}

static void name_of(const struct small_upscaler *o, int index, char *ret)
{
    int in_blocks = o->blocks * PARTS * CONVS;

    if (o->names == NAMES_COMPACT)
        snprintf(ret, NAME_MAX_BYTES, "body.%d", 2 * index);
    else if (index == 0)
        snprintf(ret, NAME_MAX_BYTES, "%s",
                 o->names == NAMES_NUMBERED ? "model.0" : "conv_first");
    else if (index <= in_blocks)
        name_in_block(o, (index - 1) / (PARTS * CONVS), (index - 1) / CONVS % PARTS + 1,
                      (index - 1) % CONVS + 1, ret);
    else
        name_behind(o, index - 1 - in_blocks, ret);
}

/* ---- the files ---- */

struct writer {
    const struct small_upscaler *o;
    struct buf header, data;
    struct zip_writer zip;
    unsigned count;
};

static void put_tensor(struct writer *w, const char *name, const float *values,
                       const unsigned long *dim, int rank)
{
    unsigned long count = 1;

    if (w->o->without && strcmp(name, w->o->without) == 0)
        return;
    for (int i = 0; i < rank; i++)
        count *= dim[i];
    if (w->o->is_torch) {
        char key[16], entry[40];
        const struct torch_tensor described = {.storage = "FloatStorage",
                                               .key = key,
                                               .numbers = count,
                                               .rank = rank,
                                               .size = dim};

        snprintf(key, sizeof(key), "%u", w->count);
        snprintf(entry, sizeof(entry), "archive/data/%u", w->count);
        put_pickle_text(&w->header, name);
        put_torch_tensor(&w->header, &described);
        zip_writer_add(&w->zip, entry, values, count * sizeof(float));
    } else {
        buf_printf(&w->header, "%s\"%s%s\":{\"dtype\":\"F32\",\"shape\":[",
                   w->count ? "," : "{", w->o->prefix, name);
        for (int i = 0; i < rank; i++)
            buf_printf(&w->header, "%s%lu", i ? "," : "", dim[i]);
        buf_printf(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->data.len,
                   w->data.len + count * sizeof(float));
        buf_append(&w->data, values, count * sizeof(float));
    }
    w->count++;
}

static void put_layer(struct writer *w, int index, const struct small_layer *layer)
{
    const unsigned long dim[] = {(unsigned long)layer->out, (unsigned long)layer->in, 3,
                                 3};
    char name[NAME_MAX_BYTES], part[NAME_MAX_BYTES + 10];

    name_of(w->o, index, name);
    snprintf(part, sizeof(part), "%s.weight", name);
    put_tensor(w, part, layer->weight, dim, 4);
    snprintf(part, sizeof(part), "%s.bias", name);
    put_tensor(w, part, layer->bias, dim, 1);
    if (layer->slopes) {
        snprintf(part, sizeof(part), "body.%d.weight", 2 * index + 1);
        put_tensor(w, part, layer->slopes, dim, 1);
    }
}

static struct buf file_of(struct writer *w)
{
    struct buf all = {0};
    uint64_t length;

    if (w->o->is_torch) {
        buf_append_str(&w->header, "uu.");
        zip_writer_add(&w->zip, "archive/data.pkl", w->header.data, w->header.len);
        return zip_writer_end(&w->zip);
    }
    buf_append_str(&w->header, "}");
    length = w->header.len; /* little endian, as every machine here */
    buf_append(&all, &length, sizeof(length));
    buf_append(&all, w->header.data, w->header.len);
    buf_append(&all, w->data.data, w->data.len);
    return all;
}

char *small_upscaler_write(const struct small_upscaler *options)
{
    struct small_upscaler o = whole(options);
    struct small_layers l = small_upscaler_layers(options);
    struct writer w = {.o = &o};
    char *path = mem_strdup("/tmp/mysti-upscaler-XXXXXX");
    struct buf bytes;
    int fd = mkstemp(path);

    if (o.is_torch) {
        buf_append_str(&w.header, PICKLE_BEGIN PICKLE_DICT_BEGIN);
        put_pickle_text(&w.header, "params_ema");
        buf_append_str(&w.header, "ccollections\nOrderedDict\n)R(");
    }
    for (size_t i = 0; i < l.count; i++)
        put_layer(&w, (int)i, &l.layers[i]);
    if (o.extra)
        put_tensor(&w, o.extra, (float[]){1}, (unsigned long[]){1}, 1);
    bytes = file_of(&w);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.data, bytes.len), bytes.len);
    close(fd);
    buf_release(&bytes);
    buf_release(&w.header);
    buf_release(&w.data);
    small_layers_free(&l);
    return path;
}
