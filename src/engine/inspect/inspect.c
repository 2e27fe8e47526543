/* inspect: what a file is, for a person who found it somewhere.
 *
 * Told from the tensors, never from the name: LoRA files by the endings of their names,
 * textual inversions by their few vectors, everything else by the networks in it
 * (networks.c). Families differ by the width of the text that cross-attention reads
 * (lora/family.c has the table); what a U-Net is for, by its input channels.
 *
 * Whether Mysti draws with it is not guessed: the file is opened as a checkpoint, which
 * checks every tensor, and what that says is quoted. */
#include "engine/inspect/inspect.h"
#include "engine/inspect/taesd.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/model_folder.h"
#include "base/str.h"
#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/inspect/networks.h"
#include "engine/lora/bundle.h"
#include "engine/lora/family.h"
#include "engine/lora/parts.h"
#include "engine/upscale/net.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_SHOWN 8
#define META_SHOWN 300 /* bytes of a value */

struct report {
    const struct weights_file *file;
    struct networks networks;
    struct lora_groups groups;
    struct taesd_look taesd;
    json_t *json, *needs;
};

static void set_text(struct report *r, const char *key, const char *text)
{
    json_object_set_new(r->json, key, json_string(text));
}

static void set_number(json_t *object, const char *key, uint64_t number)
{
    json_object_set_new(object, key, json_integer((json_int_t)number));
}

static void set_kind(struct report *r, const char *kind, const char *family,
                     const char *summary)
{
    set_text(r, "kind", kind);
    json_object_set_new(r->json, "family", family ? json_string(family) : json_null());
    set_text(r, "summary", summary);
}

static void need(struct report *r, const char *what)
{
    json_array_append_new(r->needs, json_string(what));
}

static bool has(const struct report *r, const char *prefix, const char *name)
{
    struct buf whole = {0};
    bool is_there;

    buf_printf(&whole, "%s%s", prefix, name);
    is_there = weights_file_find(r->file, buf_str(&whole)) != NULL;
    buf_release(&whole);
    return is_there;
}

/* The first tensor whose name begins and ends so; NULL: there is none. */
static const struct weight *first_like(const struct report *r, const char *begin,
                                       const char *end)
{
    for (size_t i = 0; i < weights_file_count(r->file); i++) {
        const struct weight *w = weights_file_at(r->file, i);

        if (str_has_prefix(w->name, begin) && str_has_suffix(w->name, end))
            return w;
    }
    return NULL;
}

/* ---- picture models and their parts ---- */

static size_t cross_attentions(const struct report *r)
{
    size_t count = 0;

    for (size_t i = 0; i < weights_file_count(r->file); i++)
        count +=
            str_has_suffix(weights_file_at(r->file, i)->name, ".attn2.to_k.weight");
    return count;
}

/* For what, and how large: in words behind the family's name. */
static void describe_unet(struct report *r, struct buf *summary, const char *family)
{
    const struct weight *first =
        first_like(r, r->networks.unet, "input_blocks.0.0.weight");
    size_t attentions = cross_attentions(r);
    size_t whole = !family                         ? 0
                   : strcmp(family, "SDXL") == 0   ? 70
                   : str_has_prefix(family, "SD ") ? 16
                                                   : 0;
    int64_t takes = first && first->rank == 4 ? first->dim[1] : 0;

    if (attentions < whole)
        buf_printf(summary, ", distilled (%zu of %zu cross-attentions)", attentions,
                   whole);
    if (takes == 9)
        buf_append_str(summary, ", for inpainting (9 input channels)");
    else if (takes == 8)
        buf_append_str(summary, ", for editing by instruction (8 input channels)");
    else if (takes == 5)
        buf_append_str(summary, ", guided by depth (5 input channels)");
    else if (takes != 4)
        buf_printf(summary, ", with %lld input channels", (long long)takes);
    set_number(r->json, "input_channels", (uint64_t)takes);
}

/* "SD 1.x", or how it differs when it is built like that and no known size. */
static void name_family(const struct report *r, struct buf *summary, const char *family)
{
    const struct weight *k = first_like(r, r->networks.unet, ".attn2.to_k.weight");

    if (family)
        buf_append_str(summary, family);
    else if (k && k->rank == 2)
        buf_printf(summary, "of no known family: its text has %lld channels",
                   (long long)k->dim[1]);
    else
        buf_append_str(summary, "of no known family: it has no cross-attention");
}

static void describe_picture_model(struct report *r)
{
    const struct weight *k = first_like(r, r->networks.unet, ".attn2.to_k.weight");
    const char *family = k && k->rank == 2 ? family_of_context(k->dim[1]) : NULL;
    const struct network_size *of = r->networks.of;
    bool is_alone = !of[NETWORK_TEXT].tensors && !of[NETWORK_TEXT2].tensors &&
                    !of[NETWORK_DECODER].tensors;
    struct buf summary = {0};

    buf_append_str(&summary, is_alone ? "the U-Net alone of a picture model, "
                                      : "a picture model, ");
    name_family(r, &summary, family);
    describe_unet(r, &summary, family);
    set_kind(r, is_alone ? "unet" : "checkpoint", family, buf_str(&summary));
    if (!of[NETWORK_TEXT].tensors && !of[NETWORK_TEXT2].tensors)
        need(r, "a text encoder");
    if (family && strcmp(family, "SDXL") == 0 && of[NETWORK_TEXT].tensors &&
        !of[NETWORK_TEXT2].tensors)
        need(r, "the second text encoder");
    if (!of[NETWORK_DECODER].tensors)
        need(r, "a VAE, named with each picture (\"vae\") or by --vae");
    else if (!of[NETWORK_ENCODER].tensors)
        need(r, "a VAE's encoder, for pictures that start from another one");
    buf_release(&summary);
}

static void describe_vae(struct report *r)
{
    const char *prefix =
        has(r, "", "decoder.conv_in.weight") ? "" : "first_stage_model.";
    const struct weight *first = first_like(r, prefix, "decoder.conv_in.weight");
    struct buf summary = {0};

    buf_printf(&summary, "a VAE alone, for latents of %lld channels",
               first && first->rank == 4 ? (long long)first->dim[1] : 0LL);
    set_kind(r, "vae", NULL, buf_str(&summary));
    need(r, "a picture model to be the VAE of");
    buf_release(&summary);
}

static void describe_taesd(struct report *r)
{
    const struct taesd_look *l = &r->taesd;
    const char *name = file_name(weights_file_path(r->file));
    bool says_xl = strcasestr(name, "xl") != NULL;
    struct buf text = {0};

    buf_printf(&text, "a TAESD, the tiny VAE, %s",
               l->has_decoder && l->has_encoder ? "both halves"
               : l->has_decoder                 ? "its decoder alone"
                                                : "its encoder alone");
    if (l->channels)
        buf_printf(&text, ", for latents of %lld channels", (long long)l->channels);
    set_kind(r, "vae", NULL, buf_str(&text));
    if (!l->has_decoder)
        need(r, "its decoder beside it, in a file that is called the same but for that "
                "word");
    else if (!l->has_encoder)
        need(r, "its encoder, for pictures that start from another one");
    buf_clear(&text);
    if (l->channels == 4)
        buf_printf(
            &text,
            "a picture model to be the VAE of: SD 1.x and SD 2.x, or SDXL, which "
            "no tensor tells%s",
            says_xl ? " (its name says SDXL)" : "");
    else
        buf_append_str(&text, "a picture model to be the VAE of");
    need(r, buf_str(&text));
    buf_release(&text);
}

static void describe_text_encoder(struct report *r)
{
    set_kind(r, "text_encoder", NULL, "a text encoder alone");
    need(r, "a picture model to be the text encoder of");
}

/* Models of other kinds, by a beginning that only theirs have. */
static const struct {
    const char *begin, *kind, *family, *summary;
} others[] = {
    {"double_blocks.", "checkpoint", "Flux", "a picture model, Flux"},
    {"model.diffusion_model.double_blocks.", "checkpoint", "Flux",
     "a picture model, Flux"},
    {"joint_blocks.", "checkpoint", "SD 3", "a picture model, SD 3"},
    {"model.diffusion_model.joint_blocks.", "checkpoint", "SD 3",
     "a picture model, SD 3"},
    {"control_model.", "controlnet", NULL, "a ControlNet"},
    {"controlnet_cond_embedding.", "controlnet", NULL, "a ControlNet"},
    {"down_blocks.", "unet", NULL,
     "the U-Net of a diffusers folder: name the folder, not a file in it"},
    {"decoder.mid_block.", "vae", NULL,
     "the VAE of a diffusers folder; put into the VAE folder it serves other models"},
};

static bool is_other(const struct report *r, size_t *ret_which)
{
    for (*ret_which = 0; *ret_which < sizeof(others) / sizeof(others[0]); ++*ret_which)
        if (first_like(r, others[*ret_which].begin, ""))
            return true;
    return false;
}

/* ---- small files ---- */

static const struct {
    enum lora_part part;
    const char *name;
} algorithms[] = {
    {LORA_HADA_W1_A, "LoHa"}, {LORA_LOKR_W1, "LoKr"}, {LORA_LOKR_W1_A, "LoKr"},
    {LORA_GLORA_A1, "GLoRA"}, {LORA_IA3, "IA3"},      {LORA_OFT_DIAG, "OFT"},
    {LORA_OFT_BLOCKS, "OFT"},
};

static const char *lora_algorithm(const struct lora_groups *groups)
{
    const char *name = "LoRA";

    for (size_t i = 0; i < groups->count; i++) {
        const struct lora_parts *p = &groups->all[i].parts;

        if (p->of[LORA_DORA] || p->of[LORA_MAGNITUDE])
            return "DoRA";
        if (p->of[LORA_OFT_BLOCKS] && p->of[LORA_OFT_BLOCKS]->rank == 4)
            return "BOFT";
        for (size_t k = 0; k < sizeof(algorithms) / sizeof(*algorithms); k++)
            if (p->of[algorithms[k].part])
                name = algorithms[k].name;
    }
    return name;
}

/* The smallest and the largest rank there is; 0 when no part says one. */
static void lora_ranks(const struct lora_groups *groups, int64_t *ret_least,
                       int64_t *ret_most)
{
    *ret_least = *ret_most = 0;
    for (size_t i = 0; i < groups->count; i++) {
        const struct weight *down = groups->all[i].parts.of[LORA_DOWN];

        if (!down || down->rank < 2)
            continue;
        if (!*ret_least || down->dim[0] < *ret_least)
            *ret_least = down->dim[0];
        if (down->dim[0] > *ret_most)
            *ret_most = down->dim[0];
    }
}

static bool changes_text(const struct lora_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++)
        if (memmem(groups->all[i].stem, groups->all[i].stem_len, "lora_te", 7) ||
            memmem(groups->all[i].stem, groups->all[i].stem_len, "text_", 5))
            return true;
    return false;
}

/* the words that the file brings; tensors of one stand beside each other or not */
static void append_bundled(const struct report *r, struct buf *summary)
{
    const char *first = NULL;
    size_t first_len = 0;
    bool has_more = false;

    for (size_t i = 0; i < weights_file_count(r->file); i++) {
        const char *tensor = weights_file_at(r->file, i)->name;
        size_t len = lora_bundle_name(tensor);

        if (!len)
            continue;
        tensor += strlen(LORA_BUNDLE);
        if (!first) {
            first = tensor;
            first_len = len;
        } else if (len != first_len || strncmp(first, tensor, len) != 0) {
            has_more = true;
        }
    }
    if (first)
        buf_printf(summary, "; it brings the textual inversion%s %.*s%s",
                   has_more ? "s" : "", (int)first_len, first,
                   has_more ? " and more" : "");
}

static void describe_lora(struct report *r)
{
    int64_t context, least, most;
    const char *family = lora_family(&r->groups, r->file, &context);
    const char *kind = lora_algorithm(&r->groups);
    struct buf summary = {0}, wants = {0};

    lora_ranks(&r->groups, &least, &most);
    buf_printf(&summary, "%s %s for ", strchr("IO", kind[0]) ? "an" : "a", kind);
    if (family)
        buf_printf(&summary, "%.80s", family);
    else if (context)
        buf_printf(&summary,
                   "a model of no known family: it reads text of %lld channels",
                   (long long)context);
    else
        buf_append_str(&summary, "a model that it does not name");
    buf_printf(&summary, ", changes %zu weights", r->groups.count);
    if (most)
        buf_printf(&summary, least == most ? ", rank %lld" : ", ranks %lld to %lld",
                   (long long)least, (long long)most);
    buf_append_str(&summary,
                   changes_text(&r->groups) ? ", the text encoder's too" : "");
    append_bundled(r, &summary);
    set_kind(r, "lora", family, buf_str(&summary));
    buf_append_str(&wants, "a picture model");
    if (family)
        buf_printf(&wants, ", %.80s", family);
    else if (context)
        buf_printf(&wants, " whose text has %lld channels", (long long)context);
    need(r, buf_str(&wants));
    buf_release(&summary);
    buf_release(&wants);
}

/* The vectors of a textual inversion; NULL when the file is none. */
static const struct weight *find_vectors(const struct report *r)
{
    static const char *const names[] = {"emb_params", "clip_l", "clip_g"};
    const struct weight *w = first_like(r, "string_to_param.", "");

    for (size_t i = 0; !w && i < sizeof(names) / sizeof(names[0]); i++)
        w = weights_file_find(r->file, names[i]);
    if (!w && weights_file_count(r->file) == 1)
        w = weights_file_at(r->file, 0); /* diffusers': the word itself is the name */
    if (!w || w->rank < 1 || w->rank > 2 || !family_of_context(w->dim[w->rank - 1]))
        return NULL;
    return w;
}

static void describe_vectors(struct report *r, const struct weight *w)
{
    int64_t width = w->dim[w->rank - 1], count = w->rank == 2 ? w->dim[0] : 1;
    const char *family =
        weights_file_find(r->file, "clip_g") ? "SDXL" : family_of_context(width);
    struct buf summary = {0};

    if (width == 1280)
        family = "SDXL"; /* of its second encoder */
    buf_printf(&summary, "a textual inversion for %s, %lld vector%s of %lld", family,
               (long long)count, count == 1 ? "" : "s", (long long)width);
    set_kind(r, "textual_inversion", family, buf_str(&summary));
    buf_clear(&summary);
    buf_printf(&summary, "a picture model, %s", family);
    need(r, buf_str(&summary));
    buf_release(&summary);
}

static void describe_text_model(struct report *r)
{
    const char *architecture = weights_file_meta(r->file, "general.architecture");
    struct buf summary = {0};

    buf_printf(&summary, "a text model, %.60s",
               architecture ? architecture : "unnamed");
    set_kind(r, "text", architecture, buf_str(&summary));
    need(r, "llama-server, which runs it");
    buf_release(&summary);
}

static void describe_upscaler(struct report *r, const struct net_look *look)
{
    struct buf summary = {0};

    buf_printf(&summary, "an upscaler of %s", look->family);
    if (look->scale)
        buf_printf(&summary, ", %d times, %d block%s", look->scale, look->blocks,
                   look->blocks == 1 ? "" : "s");
    set_kind(r, "upscaler", look->family == net_rrdb.family ? "ESRGAN" : "compact",
             buf_str(&summary));
    if (look->trouble.code)
        need(r, look->trouble.message);
    else
        need(r, "a place in the upscaler folder: it is not a model that draws");
    buf_release(&summary);
}

static void describe_unknown(struct report *r)
{
    const char *kind = lora_unknown_kind(r->file);
    struct buf summary = {0};

    if (!kind)
        kind = net_other_kind(r->file);
    if (kind)
        buf_printf(&summary, "%s, which Mysti does not support", kind);
    else
        buf_append_str(&summary, "nothing that is known");
    set_kind(r, "unknown", NULL, buf_str(&summary));
    buf_release(&summary);
}

/* ---- all kinds ---- */

static bool is_lora(const struct report *r)
{
    return r->groups.count > r->groups.stranger_count;
}

static bool is_text_model(const struct report *r)
{
    return strcmp(weights_file_format(r->file), "GGUF") == 0 &&
           weights_file_find(r->file, "token_embd.weight");
}

static void describe(struct report *r)
{
    const struct weight *vectors = find_vectors(r);
    const struct network_size *of = r->networks.of;
    struct net_look upscaler;
    size_t which;

    if (is_text_model(r))
        describe_text_model(r);
    else if (is_lora(r))
        describe_lora(r);
    else if (vectors)
        describe_vectors(r, vectors);
    else if (r->networks.unet && has(r, r->networks.unet, "input_blocks.0.0.weight"))
        describe_picture_model(r);
    else if (r->taesd.has_decoder || r->taesd.has_encoder)
        describe_taesd(r);
    else if (is_other(r, &which))
        set_kind(r, others[which].kind, others[which].family, others[which].summary);
    else if (of[NETWORK_DECODER].tensors || of[NETWORK_ENCODER].tensors)
        describe_vae(r);
    else if (of[NETWORK_TEXT].tensors || of[NETWORK_TEXT2].tensors)
        describe_text_encoder(r);
    else if (net_look(r->file, &upscaler))
        describe_upscaler(r, &upscaler);
    else
        describe_unknown(r);
}

static bool is_made_of_networks(const struct report *r)
{
    const char *kind = json_string_value(json_object_get(r->json, "kind"));
    size_t which;

    return (strcmp(kind, "checkpoint") == 0 || strcmp(kind, "unet") == 0 ||
            strcmp(kind, "vae") == 0 || strcmp(kind, "text_encoder") == 0) &&
           !is_other(r, &which) && !r->taesd.has_decoder && !r->taesd.has_encoder;
}

static json_t *list_of(const char *const *names, size_t count)
{
    json_t *first = json_array();

    for (size_t i = 0; i < count && i < NAMES_SHOWN; i++)
        json_array_append_new(first, json_string(names[i]));
    return json_pack("{s:I, s:o}", "count", (json_int_t)count, "first", first);
}

static void add_lists(struct report *r)
{
    struct networks *n = &r->networks;
    bool has_networks = is_made_of_networks(r);

    if (!json_is_true(json_object_get(r->json, "draws")))
        networks_count_gaps(n);
    if (has_networks)
        json_object_set_new(
            r->json, "missing",
            list_of((const char *const *)n->missing.names, n->missing.count));
    if (has_networks)
        json_object_set_new(
            r->json, "left_over",
            list_of((const char *const *)n->left_over.names, n->left_over.count));
    else if (is_lora(r))
        json_object_set_new(r->json, "left_over",
                            list_of(r->groups.strangers, r->groups.stranger_count));
}

static void add_networks(struct report *r)
{
    json_t *list = json_array();

    for (int i = 0; i < NETWORKS; i++) {
        const struct network_size *size = &r->networks.of[i];
        json_t *one = json_object();

        json_object_set_new(one, "name", json_string(network_title((enum network)i)));
        set_number(one, "tensors", size->tensors);
        set_number(one, "parameters", size->parameters);
        set_number(one, "bytes", size->bytes);
        if (size->tensors)
            json_array_append(list, one);
        json_decref(one);
    }
    if (json_array_size(list) && is_made_of_networks(r))
        json_object_set(r->json, "parts", list);
    json_decref(list);
}

static void add_types(struct report *r)
{
    json_t *types = json_object();
    uint64_t parameters = 0;

    for (size_t i = 0; i < weights_file_count(r->file); i++) {
        const struct weight *w = weights_file_at(r->file, i);
        json_t *one = json_object_get(types, weight_type_name(w));

        if (!one) {
            json_object_set_new_nocheck(types, weight_type_name(w), json_object());
            one = json_object_get(types, weight_type_name(w));
            json_object_set_new(one, "is_read", json_boolean(w->type != WEIGHT_OTHER));
        }
        set_number(one, "tensors",
                   (uint64_t)json_integer_value(json_object_get(one, "tensors")) + 1);
        set_number(one, "bytes",
                   (uint64_t)json_integer_value(json_object_get(one, "bytes")) +
                       w->bytes);
        if (w->type != WEIGHT_OTHER)
            parameters += weight_count(w);
    }
    set_number(r->json, "tensors", weights_file_count(r->file));
    set_number(r->json, "parameters", parameters);
    json_object_set_new(r->json, "types", types);
}

/* What a person wants to know of it; the rest is a trainer's diary. */
static void add_metadata(struct report *r)
{
    static const char *const keys[] = {"modelspec.title",
                                       "modelspec.architecture",
                                       "modelspec.author",
                                       "modelspec.license",
                                       "modelspec.date",
                                       "modelspec.resolution",
                                       "modelspec.prediction_type",
                                       "modelspec.trigger_phrase",
                                       "modelspec.usage_hint",
                                       "ss_output_name",
                                       "ss_base_model_version",
                                       "ss_sd_model_name",
                                       "ss_network_module",
                                       "ss_network_dim",
                                       "ss_network_alpha",
                                       "ss_clip_skip",
                                       "general.name",
                                       "general.architecture",
                                       "general.size_label",
                                       "general.license",
                                       "general.quantized_by",
                                       "name",
                                       "sd_checkpoint_name",
                                       "step",
                                       "global_step",
                                       "epoch",
                                       "mysti.name",
                                       "mysti.prediction",
                                       "mysti.default_width",
                                       "mysti.default_height",
                                       "mysti.default_steps",
                                       "mysti.default_cfg_scale",
                                       "mysti.default_sampler",
                                       "mysti.default_scheduler"};
    static const char *const counts[] = {"context_length", "block_count",
                                         "embedding_length"};
    const char *architecture = weights_file_meta(r->file, "general.architecture");
    json_t *shown = json_object();
    struct buf key = {0};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) + 3; i++) {
        size_t last = sizeof(keys) / sizeof(keys[0]), len;
        const char *value;

        buf_clear(&key);
        if (i < last)
            buf_append_str(&key, keys[i]);
        else
            buf_printf(&key, "%.60s.%s", architecture ? architecture : "",
                       counts[i - last]);
        value = weights_file_meta(r->file, buf_str(&key));
        if (!value || !*value)
            continue;
        len = strlen(value);
        if (len > META_SHOWN)
            for (len = META_SHOWN; len && ((unsigned char)value[len] & 0xc0) == 0x80;)
                len--;
        /* text that is no UTF-8 is left out: jansson refuses it */
        json_object_set_new(shown, buf_str(&key), json_stringn(value, len));
    }
    buf_release(&key);
    json_object_set_new(r->json, "metadata", shown);
}

static void add_verdict(struct report *r, const char *path)
{
    const char *kind = json_string_value(json_object_get(r->json, "kind"));
    struct checkpoint *checkpoint = NULL;
    struct err err = {0};
    const char *sentence = err.message;

    if (strcmp(kind, "vae") == 0 && r->taesd.has_decoder) {
        if (taesd_check(path, &err) == 0)
            return;
    } else if (strcmp(kind, "checkpoint") != 0 && strcmp(kind, "unet") != 0) {
        return;
    } else if (checkpoint_open(&checkpoint, path, &err) == 0) {
        checkpoint_close(checkpoint);
        json_object_set_new(r->json, "draws", json_true());
        return;
    }
    if (str_has_prefix(sentence, path) && sentence[strlen(path)] == ':')
        sentence += strlen(path) + 2;
    json_object_set_new(r->json, "draws", json_false());
    set_text(r, "trouble", sentence);
}

static void report(struct report *r, const char *path)
{
    set_text(r, "path", path);
    set_text(r, "format", weights_file_format(r->file));
    set_number(r->json, "bytes", weights_file_bytes(r->file));
    networks_read(&r->networks, r->file);
    if (lora_groups_read(&r->groups, r->file, NULL))
        r->groups = (struct lora_groups){0}; /* says the same twice: no LoRA */
    taesd_look(&r->taesd, r->file);
    describe(r);
    add_types(r);
    add_networks(r);
    add_metadata(r);
    json_object_set(r->json, "needs", r->needs);
    add_verdict(r, path);
    add_lists(r);
}

char *inspect_report(const struct weights_file *file)
{
    struct report r = {.file = file, .json = json_object(), .needs = json_array()};
    char *text;

    report(&r, weights_file_path(file));
    text = json_dumps(r.json, JSON_INDENT(2));
    json_decref(r.json);
    json_decref(r.needs);
    lora_groups_release(&r.groups);
    networks_release(&r.networks);
    return text;
}

int engine_inspect(char **ret_json, const char *path, struct err *err)
{
    struct weights_file *file;
    char *inside;
    int result;

    if (!str_is_utf8(path, strlen(path)))
        return err_set(err, ERR_INVALID, "the path is not UTF-8");
    inside = model_folder_network(path);
    result = weights_file_open(&file, inside ? inside : path, err);
    free(inside);
    if (result)
        return -1;
    *ret_json = inspect_report(file);
    weights_file_close(file);
    return *ret_json ? 0
                     : err_set(err, ERR_INTERNAL,
                               "%s: what it is cannot be written as JSON", path);
}
