/* net: which kind a file is, and what all kinds have in common.
 *
 * A network that has more than its kind (ESRGAN+ with its 1x1 convolutions) is refused by the name of the tensor: left
 * out silently it would give a wrong picture. What people also call upscalers (transformers, face restorers), and
 * what strays into their folder, is called by its name, told by tensors that only it has. */
#include "engine/upscale/net.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static const struct net_kind *const kinds[] = {&net_rrdb, &net_compact};

bool net_has(const struct net *net, struct name name)
{
    return weights_file_find(net->file, NAME("%s.weight", name.text)) != NULL;
}

const char *net_family(const struct net *net)
{
    return net->kind->family;
}

/* ---- the graph ---- */

static struct graph *make_graph(const struct net *net, int high, int wide, bool *used)
{
    struct graph *g = graph_new("upscale");
    struct build b = {g, net->file, used};
    int x = graph_input(g, "picture", TENSOR_F32,
                        shape4(1, high / net->shuffle, wide / net->shuffle,
                               3 * net->shuffle * net->shuffle));
    int y = net->kind->build(&b, net, x);

    if (y >= 0 && graph_shape(g, y)->dim[3] != net->kind->channels(net))
        graph_fail(g, "its pictures have %lld channels, %lld were expected",
                   (long long)graph_shape(g, y)->dim[3],
                   (long long)net->kind->channels(net));
    graph_output(g, "larger", TENSOR_F32, y);
    return g;
}

struct graph *net_graph(const struct net *net, int high, int wide)
{
    return make_graph(net, high, wide, NULL);
}

size_t net_made_bytes(const struct net *net, int high, int wide)
{
    if (!net->kind->finish)
        return 0;
    return (size_t)high * (size_t)wide * (size_t)net->kind->channels(net) *
           sizeof(float);
}

void net_finish(const struct net *net, const float *in, const float *made, int high,
                int wide, float *ret)
{
    net->kind->finish(net, in, made, high, wide, ret);
}

/* ---- recognising ---- */

static bool find_kind(struct net *net)
{
    static const char *const prefixes[] = {"", "params_ema.", "params.", "module."};

    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
            free(net->prefix);
            net->prefix = mem_strdup(prefixes[i]);
            net->kind = kinds[k];
            if (net->kind->find(net))
                return true;
        }
    return false;
}

static const struct {
    const char *word, *name;
} others[] = {
    {"overlap_attn", "a HAT network"},
    {"residual_group.blocks.", "a SwinIR network"},
    {"before_RG.", "a DAT network"},
    {"stylegan_decoder.", "GFPGAN, which restores faces"},
    {"quantize.embedding", "CodeFormer, which restores faces"},
    {"m_body.", "a SCUNet network"},
    {".c1_r.sk.", "a SPAN network"},
    {"feats.0.", "a PLKSR network"},
    {"residual_layer.", "an OmniSR network"},
    {"control_model.", "a ControlNet"},
    {"lora_", "a LoRA"},
    {"model.diffusion_model.", "a picture model"},
    {"first_stage_model.", "a VAE"},
    {"decoder.conv_in", "a VAE"},
    {"token_embd.", "a text model"},
};

const char *net_other_kind(const struct weights_file *file)
{
    for (size_t k = 0; k < sizeof(others) / sizeof(*others); k++)
        for (size_t i = 0; i < weights_file_count(file); i++)
            if (strstr(weights_file_at(file, i)->name, others[k].word))
                return others[k].name;
    return NULL;
}

static int refuse(const struct weights_file *file, struct err *err)
{
    const char *other = net_other_kind(file);

    if (other)
        return err_set(err, ERR_BAD_FILE,
                       "is %s, and no upscaler that is known: networks of the ESRGAN "
                       "family and Real-ESRGAN's compact ones are",
                       other);
    return err_set(
        err, ERR_BAD_FILE,
        "is no upscaler that is known: of the ESRGAN family it has neither "
        "body.0.rdb1.conv1 nor RRDB_trunk.0.RDB1.conv1 nor model.1.sub.0.RDB1.conv1.0, "
        "of the compact kind no body.0 and body.2");
}

/* Every layer is there and fits, and nothing is left over. */
static int check_tensors(struct net *net, struct err *err)
{
    size_t count = weights_file_count(net->file);
    bool *used = mem_zalloc(count * sizeof(*used));
    struct graph *g = make_graph(net, 4 * net->shuffle, 4 * net->shuffle, used);
    int rc = graph_check(g, err);

    for (size_t i = 0; rc == 0 && i < count; i++) {
        const struct weight *w = weights_file_at(net->file, i);

        if (used[i])
            net->weights += weight_count(w);
        else if (str_has_prefix(w->name, net->prefix))
            rc = err_set(err, ERR_BAD_FILE,
                         "tensor %s belongs to no network of %s that is known", w->name,
                         net_family(net));
    }
    graph_free(g);
    free(used);
    return rc;
}

static int read_found(struct net *net, struct err *err)
{
    return net->kind->read_shape(net, err) || check_tensors(net, err) ? -1 : 0;
}

int net_read(struct net **ret, struct weights_file *file, struct err *err)
{
    struct net *net = mem_zalloc(sizeof(*net));
    int rc;

    net->file = net->owned = file;
    rc = find_kind(net) ? read_found(net, err) : refuse(file, err);
    if (rc)
        net_close(net);
    else
        *ret = net;
    return rc;
}

bool net_look(const struct weights_file *file, struct net_look *ret)
{
    struct net net = {.file = file};
    bool is_one = find_kind(&net);

    *ret = (struct net_look){0};
    if (is_one) {
        (void)!read_found(&net, &ret->trouble);
        ret->family = net_family(&net);
    }
    ret->scale = net.scale;
    ret->blocks = net.blocks;
    free(net.prefix);
    return is_one;
}

void net_close(struct net *net)
{
    if (!net)
        return;
    weights_file_close(net->owned);
    free(net->prefix);
    free(net);
}
