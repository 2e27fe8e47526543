#!/usr/bin/env python3
"""Makes tiny_small, inpaint_small, lcm_small, sd2_small and sdxl_small (.tensors, .safetensors): what small models of other shapes should compute.

    make_families.py [FOLDER]      needs what make_golden.py needs; with python3-transformers OpenCLIP's encoder is compared
                                   with its CLIPTextModelWithProjection

Weights, operations, autoencoder and the walk are make_golden.py's; here is what the families have of their own: OpenCLIP's text
encoder with q, k and v in one matrix, hidden states from the last layer but one, heads of 64 channels, linear projections
around the transformers, depths that differ by level, the vector of pooled text and sizes.

Tiny: SD 1.x distilled as in "tiny-sd": one block per level and no middle, numbered as if two blocks were there, so that
numbers are missing and the way up is a block of its own. Inpaint: SD 1.x's U-Net for inpainting. LCM: guidance
built in. SD 2.x: four levels of two blocks as in the real one, because what it predicts is told by the spread of
output_blocks.11.1.transformer_blocks.0.norm1.bias: 0.2 / sqrt(3) here, so v. SDXL: three levels, depths 0, 1, 2.
"""
import math
import sys

import torch
import torch.nn.functional as F

import make_golden as g
from make_golden import (NEGATIVE, POSITIONS, PROMPT, UNET, VOCABULARY, attention, conv, frame, group_norm, kernel, last,
                         layer_norm, linear, make_res, matrix, res, scale_shift, tensors, weight)

HEAD = 64


def padded(ids, pad):
    ids = frame(ids)
    end = ids.index(49407)
    return ids[:end + 1] + [pad] * (POSITIONS - end - 1)


# ---- text encoders -------------------------------------------------------------------------------------

class OpenClip:
    """prefix: with the dot at the end; hidden states are the last layer's but one"""

    def __init__(self, prefix, width, layers):
        self.prefix, self.width, self.layers = prefix, width, layers
        weight(prefix + "positional_embedding", [POSITIONS, width], scale=0.2)
        weight(prefix + "token_embedding.weight", [VOCABULARY, width], scale=0.5)
        for i in range(layers):
            name = f"{prefix}transformer.resblocks.{i}"
            weight(name + ".attn.in_proj_weight", [3 * width, width])
            weight(name + ".attn.in_proj_bias", [3 * width], scale=0.1)
            matrix(name + ".attn.out_proj", width, width)
            matrix(name + ".mlp.c_fc", 4 * width, width)
            matrix(name + ".mlp.c_proj", width, 4 * width)
            scale_shift(name + ".ln_1", width)
            scale_shift(name + ".ln_2", width)
        scale_shift(prefix + "ln_final", width)
        weight(prefix + "text_projection", [width, width])
        weight(prefix + "logit_scale", [1], base=4.6, scale=0.0)

    def states(self, ids):
        """after the embeddings and after each layer"""
        p = self.prefix
        x = tensors[p + "token_embedding.weight"][ids] + tensors[p + "positional_embedding"]
        all_states = [x]
        for i in range(self.layers):
            name = f"{p}transformer.resblocks.{i}"
            h = F.linear(layer_norm(x, name + ".ln_1"), tensors[name + ".attn.in_proj_weight"],
                         tensors[name + ".attn.in_proj_bias"])
            h = attention(*h.chunk(3, -1), self.width // HEAD, causal=True)
            x = x + linear(h, name + ".attn.out_proj")
            h = linear(layer_norm(x, name + ".ln_2"), name + ".mlp.c_fc")
            x = x + linear(F.gelu(h), name + ".mlp.c_proj")
            all_states.append(x)
        return all_states

    def normed(self, x):
        return layer_norm(x, self.prefix + "ln_final")

    def pooled(self, ids):
        x = self.normed(self.states(ids)[-1])
        ends = ids.argmax(1)  # the end of the text has the largest id
        return x[torch.arange(len(ids)), ends] @ tensors[self.prefix + "text_projection"]


class Clip:
    """OpenAI's, in Hugging Face's names"""

    def __init__(self, prefix, width, layers):
        g.TEXT, g.TEXT_WIDTH, g.TEXT_LAYERS, g.TEXT_HEADS = prefix, width, layers, width // HEAD
        g.make_text()

    def penultimate(self, ids):
        """the last layer left out, no final norm"""
        norm, g.layer_norm = g.layer_norm, lambda x, name: x if name.endswith("final_layer_norm") else norm(x, name)
        g.TEXT_LAYERS -= 1
        x = g.encode_text(ids)
        g.TEXT_LAYERS += 1
        g.layer_norm = norm
        return x


def compare_with_transformers(encoder, ids):
    try:
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection
    except ImportError:
        print("transformers is not installed: OpenCLIP's encoder was not compared with it")
        return
    model = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=encoder.width, intermediate_size=4 * encoder.width, hidden_act="gelu",
        num_hidden_layers=encoder.layers, num_attention_heads=encoder.width // HEAD, projection_dim=encoder.width,
        eos_token_id=49407)).eval()
    state, p = {}, encoder.prefix
    inside = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
              "attn.out_proj": "self_attn.out_proj"}
    state["text_model.embeddings.token_embedding.weight"] = tensors[p + "token_embedding.weight"]
    state["text_model.embeddings.position_embedding.weight"] = tensors[p + "positional_embedding"]
    state["text_projection.weight"] = tensors[p + "text_projection"].T
    for end in (".weight", ".bias"):
        state["text_model.final_layer_norm" + end] = tensors[p + "ln_final" + end]
        for i in range(encoder.layers):
            ours, theirs = f"{p}transformer.resblocks.{i}.", f"text_model.encoder.layers.{i}."
            for a, b in inside.items():
                state[theirs + b + end] = tensors[ours + a + end]
            for name, part in zip("qkv", tensors[ours + "attn.in_proj_" + end[1:]].chunk(3)):
                state[f"{theirs}self_attn.{name}_proj{end}"] = part
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not [k for k in missing if "position_ids" not in k], (missing, unexpected)
    out = model(ids, output_hidden_states=True)
    for what, theirs, ours in (("pooled", out.text_embeds, encoder.pooled(ids)),
                               ("hidden", out.hidden_states[-2], encoder.states(ids)[-2])):
        difference = (theirs - ours).abs().max().item()
        print(f"OpenCLIP, {what}: largest difference to transformers {difference:.2e}")
        assert difference < 1e-4


# ---- U-Net ---------------------------------------------------------------------------------------------

class Net:
    """mult, depths: channels and depth of the transformers by level; middle: depth there, None for no middle; heads: 0 for
    heads of 64 channels; numbers: how many block numbers a level takes, where blocks were left out; label: width of the
    vector, 0 for none; reads: channels, 9 for inpainting; guide: width of the sinusoids that tell the guidance scale, 0 for none"""

    def __init__(self, width, mult, depths, middle, blocks, context, label=0, heads=0, numbers=0, is_linear=True,
                 reads=4, guide=0):
        self.guide, self.reads, self.width, self.context, self.label = guide, reads, width, context, label
        self.heads, self.project = heads, matrix if is_linear else lambda name, o, i: kernel(name, o, i, 1)
        g.WIDTH = width
        self.plan(width, mult, depths, middle, blocks, numbers or blocks + 1)
        matrix(UNET + "time_embed.0", 4 * width, width)
        matrix(UNET + "time_embed.2", 4 * width, 4 * width)
        if guide:
            matrix(UNET + "time_embed.cond_proj", width, guide, bias=False)
        if label:
            matrix(UNET + "label_emb.0.0", 4 * width, label)
            matrix(UNET + "label_emb.0.2", 4 * width, 4 * width)
        for kind, name, i, o in [part for block in self.inputs + [self.middle] + self.outputs for part in block]:
            if kind == "res":
                make_res(name, i, o)
            elif kind == "transformer":
                self.make_transformer(name, o)
            elif kind != "join":
                kernel(name, o, i, 3)
        scale_shift(UNET + "out.0", width)
        kernel(UNET + "out.2", 4, width, 3)

    def plan(self, width, mult, depths, middle, blocks, numbers):
        """lists of blocks, each a list of (kind, name, inputs, outputs), the way SD numbers them"""
        self.inputs, channels, kept = [[("conv", UNET + "input_blocks.0.0", self.reads, width)]], width, [width]
        self.depths, levels = {}, len(mult)

        def block(name, i, level):
            parts = [("res", name + ".0", i, width * mult[level])]
            if depths[level]:
                self.depths[name + ".1"] = depths[level]
                parts.append(("transformer", name + ".1", width * mult[level], width * mult[level]))
            return parts

        for level in range(levels):
            for i in range(blocks):
                self.inputs.append(block(f"{UNET}input_blocks.{1 + numbers * level + i}", channels, level))
                channels = width * mult[level]
                kept.append(channels)
            if level < levels - 1:
                name = f"{UNET}input_blocks.{numbers * (level + 1)}.0.op"
                self.inputs.append([("down", name, channels, channels)])
                kept.append(channels)
        name = UNET + "middle_block"
        self.depths[name + ".1"] = middle
        self.middle = [] if middle is None else [(kind, f"{name}.{i}", channels, channels)
                                                 for i, kind in enumerate(("res", "transformer", "res"))]
        self.outputs = []
        for level in reversed(range(levels)):
            first = numbers * (levels - 1 - level)
            for i in range(blocks + 1):
                joined = channels + kept.pop()
                parts = [("join", "", 0, 0)] + block(f"{UNET}output_blocks.{first + i}", joined, level)
                channels = width * mult[level]
                self.outputs.append(parts)
            if level:
                name = f"{UNET}output_blocks.{first + numbers - 1}.{2 if depths[level] else 1}.conv"
                self.outputs.append([("up", name, channels, channels)])

    def make_transformer(self, name, channels):
        scale_shift(name + ".norm", channels)
        self.project(name + ".proj_in", channels, channels)
        self.project(name + ".proj_out", channels, channels)
        for depth in range(self.depths[name]):
            block = f"{name}.transformer_blocks.{depth}"
            for part, source in (("attn1", channels), ("attn2", self.context)):
                matrix(f"{block}.{part}.to_q", channels, channels, bias=False)
                matrix(f"{block}.{part}.to_k", channels, source, bias=False)
                matrix(f"{block}.{part}.to_v", channels, source, bias=False)
                matrix(f"{block}.{part}.to_out.0", channels, channels)
            matrix(block + ".ff.net.0.proj", 8 * channels, channels)
            matrix(block + ".ff.net.2", channels, 4 * channels)
            for i in (1, 2, 3):
                scale_shift(f"{block}.norm{i}", channels)

    def transformer(self, x, context, name):
        n, c, high, wide = x.shape
        h = linear(group_norm(x, name + ".norm", 1e-6).flatten(2).transpose(1, 2), name + ".proj_in")
        for depth in range(self.depths[name]):
            block = f"{name}.transformer_blocks.{depth}"
            for part, norm, source in (("attn1", "norm1", None), ("attn2", "norm2", context)):
                own = layer_norm(h, f"{block}.{norm}")
                other = own if source is None else source
                a = attention(linear(own, f"{block}.{part}.to_q"), linear(other, f"{block}.{part}.to_k"),
                              linear(other, f"{block}.{part}.to_v"), self.heads or c // HEAD)
                h = h + linear(a, f"{block}.{part}.to_out.0")
            value, gate = linear(layer_norm(h, block + ".norm3"), block + ".ff.net.0.proj").chunk(2, -1)
            h = h + linear(value * F.gelu(gate), block + ".ff.net.2")
        return x + linear(h, name + ".proj_out").transpose(1, 2).reshape(n, c, high, wide)

    def times(self, t, guide):
        if guide is None:
            return g.time_embedding(t)
        f = torch.exp(-math.log(10000) * torch.arange(self.width // 2, dtype=torch.float64) / (self.width // 2))
        angles = t.double()[:, None] * f
        x = torch.cat([angles.cos(), angles.sin()], 1).float() + linear(guide, UNET + "time_embed.cond_proj")
        return linear(F.silu(linear(x, UNET + "time_embed.0")), UNET + "time_embed.2")

    def __call__(self, x, t, context, label=None, guide=None):
        times, kept = self.times(t, guide), []
        if self.label:
            times = times + linear(F.silu(linear(label, UNET + "label_emb.0.0")), UNET + "label_emb.0.2")

        def run(x, block):
            for kind, name, _, _ in block:
                if kind == "res":
                    x = res(x, times, name)
                elif kind == "transformer":
                    x = self.transformer(x, context, name)
                elif kind == "join":
                    x = torch.cat([x, kept.pop()], 1)
                elif kind == "up":
                    x = conv(F.interpolate(x, size=kept[-1].shape[2:], mode="nearest"), name)
                else:
                    x = conv(x, name, 2 if kind == "down" else 1)
            return x

        for block in self.inputs:
            x = run(x, block)
            kept.append(x)
        for block in [self.middle] + self.outputs:
            x = run(x, block)
        return conv(F.silu(group_norm(x, UNET + "out.0", 1e-5)), UNET + "out.2")


def sizes(*numbers):
    """each as 256 sinusoids: [1, 256 * len(numbers)]"""
    f = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128)
    angles = torch.tensor(numbers, dtype=torch.float64)[:, None] * f
    return torch.cat([angles.cos(), angles.sin()], 1).float().reshape(1, -1)


# ---- the families --------------------------------------------------------------------------------------

def begin():
    torch.manual_seed(0)
    tensors.clear()
    g.listing.clear()


def finish(folder, name, out):
    with open(f"{folder}/{name}.tensors", "w") as f:
        f.write("\n".join(g.listing) + "\n")
    g.save(out, f"{folder}/{name}.safetensors", {"model": name})


def make_tiny(folder):
    begin()
    text = Clip("cond_stage_model.transformer.text_model.", 64, 2)
    net = Net(32, (1, 2, 2), (1, 1, 1), None, 1, context=64, heads=8, numbers=3, is_linear=False)
    g.make_vae()
    ids = torch.tensor([padded(PROMPT, 49407), padded(NEGATIVE, 49407)])
    context = g.encode_text(ids)
    x, t = torch.randn(2, 4, 10, 7), torch.tensor([700.25])
    out = {"text.ids": ids.float()[None], "text.out": context, "unet.x": last(x), "unet.t": t,
           "unet.out": last(net(x, t, context))}
    out["picture"] = last(g.picture(context, "eps", 5, 4, 42, net=net))
    finish(folder, "tiny_small", out)


def make_inpaint(folder):
    """Reads the latent, the mask (1: drawn anew) and the latent of the picture with grey where the mask is. The mask's edges
    are the latent's: between them nothing but rounding would be compared."""
    begin()
    text = Clip("cond_stage_model.transformer.text_model.", 64, 2)
    net = Net(32, (1, 2, 2), (1, 1, 1), 1, 1, context=64, heads=8, is_linear=False, reads=9)
    g.make_vae()
    ids = torch.tensor([padded(PROMPT, 49407), padded(NEGATIVE, 49407)])
    context = g.encode_text(ids)
    x, t = torch.randn(2, 9, 10, 7), torch.tensor([700.25])
    out = {"text.ids": ids.float()[None], "text.out": context, "unet.x": last(x), "unet.t": t,
           "unet.out": last(net(x, t, context))}

    def shown(picture, mask):
        large = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
        hint = torch.cat([mask[None, None], g.encode_picture(picture * (1 - large))[:, :4] * 0.18215], 1)
        return lambda x, t, context: net(torch.cat([x, hint.repeat(2, 1, 1, 1)], 1), t, context)

    out["picture"] = last(g.picture(context, "eps", 5, 4, 42, net=shown(torch.zeros(1, 3, 40, 32), torch.ones(5, 4))))
    start = torch.randint(0, 256, (1, 3, 40, 32), generator=torch.Generator().manual_seed(7))
    out["start.bytes"] = last(start.float())
    start = start / 127.5 - 1
    mask = torch.zeros(5, 4)
    mask[1:3, 1:4] = 1  # 24 x 16 pixels at (8, 8)
    drawn = g.picture(context, "eps", 5, 4, 42, start, 0.6, mask, net=shown(start, mask))
    mask = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
    out["masked"] = last(drawn * mask + start * (1 - mask))
    finish(folder, "inpaint_small", out)


def make_lcm(folder):
    """Guidance built in: one row, the scale told as LCM's pipelines tell it."""
    begin()
    text = Clip("cond_stage_model.transformer.text_model.", 64, 2)
    net = Net(32, (1, 2), (1, 1), 1, 1, context=64, heads=8, is_linear=False, guide=256)
    g.make_vae()
    ids = torch.tensor([padded(PROMPT, 49407), padded(NEGATIVE, 49407)])
    context = g.encode_text(ids)

    def told(scale):
        f = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 127)
        angles = 1000 * (scale - 1) * f
        return torch.cat([angles.sin(), angles.cos()])[None].float()

    x, t = torch.randn(2, 4, 10, 7), torch.tensor([700.25])
    out = {"text.ids": ids.float()[None], "text.out": context, "unet.x": last(x), "unet.t": t, "unet.guide": told(3.5),
           "unet.out": last(net(x, t, context, guide=told(3.5)))}
    only = lambda x, t, context: net(x[:1], t, context[:1], guide=told(5)).repeat(2, 1, 1, 1)
    out["picture"] = last(g.picture(context, "eps", 5, 4, 42, net=only))
    finish(folder, "lcm_small", out)


def make_sd2(folder):
    begin()
    text = OpenClip("cond_stage_model.model.", 128, 3)
    net = Net(64, (1, 1, 2, 2), (1, 1, 1, 0), 1, 2, context=128)
    g.make_vae()
    ids = torch.tensor([padded(PROMPT, 0), padded(NEGATIVE, 0)])
    compare_with_transformers(text, ids)
    context = text.normed(text.states(ids)[-2])
    x, t = torch.randn(2, 4, 10, 7), torch.tensor([700.25])
    out = {"text.ids": ids.float()[None], "text.out": context, "unet.x": last(x), "unet.t": t, "unet.out": last(net(x, t, context))}
    out["picture"] = last(g.picture(context, "v", 5, 4, 42, net=net))
    finish(folder, "sd2_small", out)


def make_sdxl(folder):
    begin()
    small = Clip("conditioner.embedders.0.transformer.text_model.", 64, 2)
    large = OpenClip("conditioner.embedders.1.model.", 128, 3)
    net = Net(64, (1, 2, 2), (0, 1, 2), 2, 2, context=64 + 128, label=128 + 6 * 256)
    g.make_vae()
    first = torch.tensor([padded(PROMPT, 49407), padded(NEGATIVE, 49407)])
    second = torch.tensor([padded(PROMPT, 0), padded(NEGATIVE, 0)])
    compare_with_transformers(large, second)
    context = torch.cat([small.penultimate(first), large.states(second)[-2]], 2)
    pooled = large.pooled(second)
    label = lambda high, wide: torch.cat([pooled, sizes(high, wide, 0, 0, high, wide).repeat(2, 1)], 1)
    x, t = torch.randn(2, 4, 10, 7), torch.tensor([700.25])
    out = {"text.ids": torch.stack([first, second]).float(), "text.out": context, "text.pooled": pooled, "unet.x": last(x), "unet.t": t,
           "unet.label": label(80, 56), "unet.out": last(net(x, t, context, label(80, 56)))}
    drawn = lambda x, t, context: net(x, t, context, label(40, 32))
    out["picture"] = last(g.picture(context, "eps", 5, 4, 42, net=drawn, scale=0.13025))
    # without a negative prompt A1111 says nothing at all: zeros
    context, pooled = context.clone(), pooled.clone()
    context[1], pooled[1] = 0, 0
    out["picture.silent"] = last(g.picture(context, "eps", 5, 4, 42, net=drawn, scale=0.13025))
    finish(folder, "sdxl_small", out)


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else __file__.rsplit("/", 1)[0]
    make_tiny(where)
    make_inpaint(where)
    make_lcm(where)
    make_sd2(where)
    make_sdxl(where)
