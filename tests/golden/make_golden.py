#!/usr/bin/env python3
"""Makes sd1_small.tensors and sd1_small.safetensors: what a small model of SD 1.x's shape should compute.

    make_golden.py [FOLDER]        needs python3-torch, python3-numpy, python3-safetensors; with
                                   python3-transformers the text encoder is also compared with its CLIPTextModel
    make_golden.py --checkpoint SD15.safetensors VECTORS
                                   the same for a real file of Stable Diffusion 1.5's sizes, to be looked at with
                                   test_golden SD15.safetensors VECTORS (not in CI: gigabytes, minutes)

The model is written here from the papers' diagrams in plain PyTorch (channels first, nothing fused, nothing
joined, one attention at a time), so that it shares no idea with Mysti's graph but the mathematics.

No weights are committed: a weight is a hash of its tensor's name and its index (see weight()), which the C test
computes as well. sd1_small.tensors lists "name base scale dims..."; sd1_small.safetensors holds inputs and
expected outputs (f32), among them single blocks, so that a difference has an address.

The shape is chosen to meet what a checkpoint can vary in: three levels with attention on the first two only,
two residual blocks per level, a linear and a convolutional proj_in, context and text widths that differ from
SD's, more than one head everywhere, group norms with fewer than 32 groups, latents of odd size.
"""
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

torch.manual_seed(0)
torch.set_grad_enabled(False)
torch.set_num_threads(2)

WIDTH, MULT, ATTENTION, BLOCKS, HEADS = 32, (1, 2, 2), (True, True, False), 2, 4
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS, VOCABULARY, POSITIONS = 48, 3, 3, 49408, 77
VAE_WIDTH, VAE_MULT, VAE_BLOCKS = 16, (1, 2, 2, 4), 2
# "a red circle on a blue background" and "blurry" in CLIP's vocabulary
PROMPT, NEGATIVE = [320, 736, 7117, 525, 320, 1746, 5994], [21977]

tensors = {}  # name -> tensor
listing = []


def weight(name, dims, base=0.0, scale=None):
    """FNV-1a of the name, then per element a 32-bit mix (murmur3's finaliser) -> base + scale * (-1..1)"""
    if scale is None:
        scale = math.sqrt(3 / math.prod(dims[1:]))  # variance 1 / fan-in
    scale = float(f"{scale:.9g}")
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 & 0xFFFFFFFF
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(dims), dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ x >> np.uint32(shift)) * np.uint32(factor)
        x = x ^ x >> np.uint32(16)
    u = (x >> np.uint32(8)).astype(np.float64) / 2 ** 23 - 1
    tensors[name] = torch.from_numpy((base + scale * u).astype(np.float32).reshape(dims))
    listing.append(f"{name} {base:g} {scale:.9g} {' '.join(map(str, dims))}")


def matrix(name, outputs, inputs, bias=True):
    weight(name + ".weight", [outputs, inputs])
    if bias:
        weight(name + ".bias", [outputs], scale=0.1)


def kernel(name, outputs, inputs, size):
    weight(name + ".weight", [outputs, inputs, size, size])
    weight(name + ".bias", [outputs], scale=0.1)


def scale_shift(name, channels):
    weight(name + ".weight", [channels], base=1.0, scale=0.2)
    weight(name + ".bias", [channels], scale=0.2)


# ---- operations by tensor name -------------------------------------------------------------------------

def linear(x, name):
    w = tensors[name + ".weight"]
    return F.linear(x, w.reshape(w.shape[0], -1), tensors.get(name + ".bias"))


def conv(x, name, stride=1):
    w = tensors[name + ".weight"]
    if w.dim() == 2:
        w = w[:, :, None, None]
    return F.conv2d(x, w, tensors[name + ".bias"], stride, w.shape[2] // 2)


def group_norm(x, name, eps):
    channels = x.shape[1]
    groups = max(g for g in range(1, min(32, channels // 4) + 1) if channels % g == 0)
    return F.group_norm(x, groups, tensors[name + ".weight"], tensors[name + ".bias"], eps)


def layer_norm(x, name):
    return F.layer_norm(x, x.shape[-1:], tensors[name + ".weight"], tensors[name + ".bias"], 1e-5)


def attention(q, k, v, heads, causal=False):
    """[N, T, C] each"""
    split = lambda x: x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)
    scores = split(q) @ split(k).transpose(2, 3) / math.sqrt(q.shape[2] // heads)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ split(v)).transpose(1, 2).reshape(q.shape)


# ---- text encoder --------------------------------------------------------------------------------------

TEXT = "cond_stage_model.transformer.text_model."


def make_text():
    weight(TEXT + "embeddings.token_embedding.weight", [VOCABULARY, TEXT_WIDTH], scale=0.5)
    weight(TEXT + "embeddings.position_embedding.weight", [POSITIONS, TEXT_WIDTH], scale=0.2)
    for i in range(TEXT_LAYERS):
        name = f"{TEXT}encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            matrix(f"{name}.self_attn.{part}", TEXT_WIDTH, TEXT_WIDTH)
        matrix(name + ".mlp.fc1", 4 * TEXT_WIDTH, TEXT_WIDTH)
        matrix(name + ".mlp.fc2", TEXT_WIDTH, 4 * TEXT_WIDTH)
        scale_shift(name + ".layer_norm1", TEXT_WIDTH)
        scale_shift(name + ".layer_norm2", TEXT_WIDTH)
    scale_shift(TEXT + "final_layer_norm", TEXT_WIDTH)


def encode_text(ids):
    x = tensors[TEXT + "embeddings.token_embedding.weight"][ids]
    x = x + tensors[TEXT + "embeddings.position_embedding.weight"]
    for i in range(TEXT_LAYERS):
        name = f"{TEXT}encoder.layers.{i}"
        h = layer_norm(x, name + ".layer_norm1")
        q, k, v = (linear(h, f"{name}.self_attn.{part}_proj") for part in "qkv")
        x = x + linear(attention(q, k, v, TEXT_HEADS, causal=True), name + ".self_attn.out_proj")
        h = linear(layer_norm(x, name + ".layer_norm2"), name + ".mlp.fc1")
        x = x + linear(h * torch.sigmoid(1.702 * h), name + ".mlp.fc2")
    return layer_norm(x, TEXT + "final_layer_norm")


def compare_with_transformers(ids, ours):
    try:
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError:
        print("transformers is not installed: the text encoder was not compared with it")
        return
    model = CLIPTextModel(CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS, num_attention_heads=TEXT_HEADS, hidden_act="quick_gelu")).eval()
    prefix = "text_model." if any(k.startswith("text_model.") for k in model.state_dict()) else ""
    state = {prefix + k[len(TEXT):]: v for k, v in tensors.items() if k.startswith(TEXT)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not [k for k in missing if "position_ids" not in k], (missing, unexpected)
    difference = (model(ids).last_hidden_state - ours).abs().max().item()
    print(f"text encoder: largest difference to transformers' CLIPTextModel {difference:.2e}")
    assert difference < 1e-4


# ---- U-Net ---------------------------------------------------------------------------------------------

UNET = "model.diffusion_model."


def make_res(name, inputs, outputs):
    scale_shift(name + ".in_layers.0", inputs)
    kernel(name + ".in_layers.2", outputs, inputs, 3)
    matrix(name + ".emb_layers.1", outputs, 4 * WIDTH)
    scale_shift(name + ".out_layers.0", outputs)
    kernel(name + ".out_layers.3", outputs, outputs, 3)
    if inputs != outputs:
        kernel(name + ".skip_connection", outputs, inputs, 1)


def res(x, times, name):
    h = conv(F.silu(group_norm(x, name + ".in_layers.0", 1e-5)), name + ".in_layers.2")
    h = h + linear(F.silu(times), name + ".emb_layers.1")[:, :, None, None]
    h = conv(F.silu(group_norm(h, name + ".out_layers.0", 1e-5)), name + ".out_layers.3")
    return h + (conv(x, name + ".skip_connection") if name + ".skip_connection.weight" in tensors else x)


def make_transformer(name, channels, is_linear=False):
    scale_shift(name + ".norm", channels)
    for part in ("proj_in", "proj_out"):
        (matrix if is_linear else lambda n, o, i: kernel(n, o, i, 1))(f"{name}.{part}", channels, channels)
    block = name + ".transformer_blocks.0"
    for part, source in (("attn1", channels), ("attn2", TEXT_WIDTH)):
        matrix(f"{block}.{part}.to_q", channels, channels, bias=False)
        matrix(f"{block}.{part}.to_k", channels, source, bias=False)
        matrix(f"{block}.{part}.to_v", channels, source, bias=False)
        matrix(f"{block}.{part}.to_out.0", channels, channels)
    matrix(block + ".ff.net.0.proj", 8 * channels, channels)
    matrix(block + ".ff.net.2", channels, 4 * channels)
    for i in (1, 2, 3):
        scale_shift(f"{block}.norm{i}", channels)


def transformer(x, context, name):
    n, c, high, wide = x.shape
    h = conv(group_norm(x, name + ".norm", 1e-6), name + ".proj_in").flatten(2).transpose(1, 2)
    block = name + ".transformer_blocks.0"
    for part, norm, source in (("attn1", "norm1", None), ("attn2", "norm2", context)):
        own = layer_norm(h, f"{block}.{norm}")
        other = own if source is None else source
        a = attention(linear(own, f"{block}.{part}.to_q"), linear(other, f"{block}.{part}.to_k"),
                      linear(other, f"{block}.{part}.to_v"), HEADS)
        h = h + linear(a, f"{block}.{part}.to_out.0")
    value, gate = linear(layer_norm(h, block + ".norm3"), block + ".ff.net.0.proj").chunk(2, -1)
    h = h + linear(value * F.gelu(gate), block + ".ff.net.2")
    return x + conv(h.transpose(1, 2).reshape(n, c, high, wide), name + ".proj_out")


def plan_unet():
    """The network as lists of (kind, name, inputs, outputs), the way SD numbers its blocks."""
    inputs, channels, kept = [[("conv", UNET + "input_blocks.0.0", 4, WIDTH)]], WIDTH, [WIDTH]
    for level, factor in enumerate(MULT):
        for _ in range(BLOCKS):
            name = f"{UNET}input_blocks.{len(inputs)}"
            block = [("res", name + ".0", channels, WIDTH * factor)]
            channels = WIDTH * factor
            if ATTENTION[level]:
                block.append(("transformer", name + ".1", channels, channels))
            inputs.append(block)
            kept.append(channels)
        if level < len(MULT) - 1:
            inputs.append([("down", f"{UNET}input_blocks.{len(inputs)}.0.op", channels, channels)])
            kept.append(channels)
    name = UNET + "middle_block"
    middle = [("res", name + ".0", channels, channels), ("transformer", name + ".1", channels, channels),
              ("res", name + ".2", channels, channels)]
    outputs = []
    for level in reversed(range(len(MULT))):
        for i in range(BLOCKS + 1):
            name = f"{UNET}output_blocks.{len(outputs)}"
            block = [("res", name + ".0", channels + kept.pop(), WIDTH * MULT[level])]
            channels = WIDTH * MULT[level]
            if ATTENTION[level]:
                block.append(("transformer", name + ".1", channels, channels))
            if level and i == BLOCKS:
                block.append(("up", f"{name}.{len(block)}.conv", channels, channels))
            outputs.append(block)
    return inputs, middle, outputs


def make_unet():
    matrix(UNET + "time_embed.0", 4 * WIDTH, WIDTH)
    matrix(UNET + "time_embed.2", 4 * WIDTH, 4 * WIDTH)
    inputs, middle, outputs = plan_unet()
    for kind, name, i, o in [part for block in inputs + [middle] + outputs for part in block]:
        if kind == "res":
            make_res(name, i, o)
        elif kind == "transformer":
            make_transformer(name, o, is_linear="middle" in name)
        else:
            kernel(name, o, i, 3)
    scale_shift(UNET + "out.0", WIDTH)
    kernel(UNET + "out.2", 4, WIDTH, 3)


def time_embedding(t):
    f = torch.exp(-math.log(10000) * torch.arange(WIDTH // 2, dtype=torch.float64) / (WIDTH // 2))
    angles = t.double()[:, None] * f
    x = torch.cat([angles.cos(), angles.sin()], 1).float()
    return linear(F.silu(linear(x, UNET + "time_embed.0")), UNET + "time_embed.2")


def unet(x, t, context):
    times, kept = time_embedding(t), []
    inputs, middle, outputs = plan_unet()

    def run(x, block, size=None):
        for kind, name, _, _ in block:
            if kind == "res":
                x = res(x, times, name)
            elif kind == "transformer":
                x = transformer(x, context, name)
            elif kind == "up":
                x = conv(F.interpolate(x, size=size, mode="nearest"), name)
            else:
                x = conv(x, name, 2 if kind == "down" else 1)
        return x

    for block in inputs:
        x = run(x, block)
        kept.append(x)
    x = run(x, middle)
    for block in outputs:
        skip = kept.pop()
        x = run(torch.cat([x, skip], 1), block, kept[-1].shape[2:] if kept else None)
    return conv(F.silu(group_norm(x, UNET + "out.0", 1e-5)), UNET + "out.2")


# ---- VAE -----------------------------------------------------------------------------------------------

VAE = "first_stage_model."


def make_vae():
    def block(name, i, o):
        scale_shift(name + ".norm1", i)
        kernel(name + ".conv1", o, i, 3)
        scale_shift(name + ".norm2", o)
        kernel(name + ".conv2", o, o, 3)
        if i != o:
            kernel(name + ".nin_shortcut", o, i, 1)

    def middle(name, c):
        block(name + ".mid.block_1", c, c)
        scale_shift(name + ".mid.attn_1.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            kernel(f"{name}.mid.attn_1.{part}", c, c, 1)
        block(name + ".mid.block_2", c, c)

    kernel(VAE + "post_quant_conv", 4, 4, 1)
    d, c = VAE + "decoder", VAE_WIDTH * VAE_MULT[-1]
    kernel(d + ".conv_in", c, 4, 3)
    middle(d, c)
    for level in reversed(range(len(VAE_MULT))):
        for i in range(VAE_BLOCKS):
            block(f"{d}.up.{level}.block.{i}", c, VAE_WIDTH * VAE_MULT[level])
            c = VAE_WIDTH * VAE_MULT[level]
        if level:
            kernel(f"{d}.up.{level}.upsample.conv", c, c, 3)
    scale_shift(d + ".norm_out", c)
    kernel(d + ".conv_out", 3, c, 3)

    e, c = VAE + "encoder", VAE_WIDTH
    kernel(e + ".conv_in", c, 3, 3)
    for level, factor in enumerate(VAE_MULT):
        for i in range(VAE_BLOCKS - 1):
            block(f"{e}.down.{level}.block.{i}", c, VAE_WIDTH * factor)
            c = VAE_WIDTH * factor
        if level < len(VAE_MULT) - 1:
            kernel(f"{e}.down.{level}.downsample.conv", c, c, 3)
    middle(e, c)
    scale_shift(e + ".norm_out", c)
    kernel(e + ".conv_out", 8, c, 3)
    kernel(VAE + "quant_conv", 8, 8, 1)


def vae_block(x, name):
    h = conv(F.silu(group_norm(x, name + ".norm1", 1e-6)), name + ".conv1")
    h = conv(F.silu(group_norm(h, name + ".norm2", 1e-6)), name + ".conv2")
    return h + (conv(x, name + ".nin_shortcut") if name + ".nin_shortcut.weight" in tensors else x)


def vae_middle(x, name):
    x = vae_block(x, name + ".mid.block_1")
    h = group_norm(x, name + ".mid.attn_1.norm", 1e-6)
    q, k, v = (conv(h, f"{name}.mid.attn_1.{part}").flatten(2).transpose(1, 2) for part in "qkv")
    h = attention(q, k, v, 1).transpose(1, 2).reshape(x.shape)
    return vae_block(x + conv(h, name + ".mid.attn_1.proj_out"), name + ".mid.block_2")


def encode_picture(x):
    """[N, 3, H, W] in -1..1 -> mean and log variance of the latent"""
    e = VAE + "encoder"
    x = conv(x, e + ".conv_in")
    for level in range(len(VAE_MULT)):
        for i in range(VAE_BLOCKS - 1):
            x = vae_block(x, f"{e}.down.{level}.block.{i}")
        if level < len(VAE_MULT) - 1:
            name = f"{e}.down.{level}.downsample.conv"
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), tensors[name + ".weight"], tensors[name + ".bias"], 2)
    x = vae_middle(x, e)
    return conv(conv(F.silu(group_norm(x, e + ".norm_out", 1e-6)), e + ".conv_out"), VAE + "quant_conv")


def decode(z):
    d = VAE + "decoder"
    x = vae_middle(conv(conv(z, VAE + "post_quant_conv"), d + ".conv_in"), d)
    for level in reversed(range(len(VAE_MULT))):
        for i in range(VAE_BLOCKS):
            x = vae_block(x, f"{d}.up.{level}.block.{i}")
        if level:
            x = conv(F.interpolate(x, scale_factor=2, mode="nearest"), f"{d}.up.{level}.upsample.conv")
    return conv(F.silu(group_norm(x, d + ".norm_out", 1e-6)), d + ".conv_out")


# ---- a whole picture: Euler, four steps of the normal schedule, guidance 5 -----------------------------

def picture(context, prediction, high, wide, seed, start=None, strength=1.0, mask=None, net=None, scale=0.18215):
    """start: a picture that the walk begins with, after A1111's rule of what strength leaves out;
    mask: [high, wide] of the latent, 1 where it is drawn anew; net: another U-Net, with latents of another scale"""
    net = net or unet
    betas = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=np.float64) ** 2
    product = np.cumprod(1 - betas)
    table = np.sqrt((1 - product) / product)
    ts = np.linspace(999, 0, 4)
    sigmas = np.append(np.exp(np.interp(ts, np.arange(1000), np.log(table))), 0)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 4, high, wide, generator=generator).double()
    first = 4 - int(min(strength, 0.999) * 4) - 1 if start is not None else 0
    x = noise * sigmas[first]
    if start is not None:
        latent = encode_picture(start)[:, :4].double() * scale
        x = x + latent
    for i, t in list(enumerate(ts))[first:]:
        s = sigmas[i]
        both = (x / math.sqrt(s * s + 1)).float().repeat(2, 1, 1, 1)
        cond, uncond = net(both, torch.tensor([t]), context).double().chunk(2)
        out = uncond + 5 * (cond - uncond)
        if prediction == "eps":
            denoised = x - s * out
        else:
            denoised = x / (s * s + 1) - out * s / math.sqrt(s * s + 1)
        if mask is not None:
            denoised = denoised * mask + latent * (1 - mask)
        x = x + (x - denoised) / s * (sigmas[i + 1] - s)
    return decode((x / scale).float())


def frame(ids):
    ids = [49406] + ids + [49407]
    return ids + [49407] * (POSITIONS - len(ids))


def last(x):
    """Mysti's order: channels last"""
    return x.permute(0, 2, 3, 1).contiguous()


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else __file__.rsplit("/", 1)[0]
    make_text()
    make_unet()
    make_vae()
    out = {}

    ids = torch.tensor([frame(PROMPT), frame(NEGATIVE)])
    context = encode_text(ids)
    compare_with_transformers(ids, context)
    out["text.ids"], out["text.out"] = ids.float(), context

    x, t = torch.randn(2, WIDTH, 6, 5), torch.tensor([321.5])
    out["res.x"], out["res.t"] = last(x), t
    out["res.out"] = last(res(x, time_embedding(t), UNET + "input_blocks.4.0"))
    x = torch.randn(2, 2 * WIDTH, 6, 5)
    out["transformer.x"] = last(x)
    out["transformer.out"] = last(transformer(x, context, UNET + "input_blocks.5.1"))

    networks(out, context)
    for prediction in ("eps", "v"):
        out["picture." + prediction] = last(picture(context, prediction, 5, 4, 42))
    start = torch.randint(0, 256, (1, 3, 40, 32), generator=torch.Generator().manual_seed(7))
    out["start.bytes"] = last(start.float())
    out["start.out"] = last(picture(context, "eps", 5, 4, 42, start / 127.5 - 1, 0.6))
    mask = torch.zeros(5, 4)
    mask[1:3, 1:4] = 1  # 24 x 16 pixels at (8, 8)
    drawn = picture(context, "eps", 5, 4, 42, start / 127.5 - 1, 0.6, mask)
    mask = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
    out["masked.out"] = last(drawn * mask + (start / 127.5 - 1) * (1 - mask))
    with open(folder + "/sd1_small.tensors", "w") as f:
        f.write("\n".join(listing) + "\n")
    save(out, folder + "/sd1_small.safetensors")


def networks(out, context):
    x = torch.randn(2, 4, 10, 7)
    out["unet.x"], out["unet.t"] = last(x), torch.tensor([700.25])
    out["unet.out"] = last(unet(x, out["unet.t"], context))

    z = torch.randn(1, 4, 5, 3)
    out["vae.z"], out["vae.out"] = last(z), last(decode(z))
    x = torch.rand(1, 3, 40, 24) * 2 - 1
    out["vae.picture"], out["vae.moments"] = last(x), last(encode_picture(x))


def save(out, path, metadata=None):
    for name, x in out.items():
        print(f"{name:18} {str(tuple(x.shape)):18} rms {x.double().pow(2).mean().sqrt().item():.4g}")
    save_file(out, path, metadata=metadata or {"unet_heads": str(HEADS), "text_heads": str(TEXT_HEADS)})


def check_checkpoint(path, vectors):
    global WIDTH, MULT, ATTENTION, HEADS, TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS, VAE_WIDTH, VAE_MULT, VAE_BLOCKS
    WIDTH, MULT, ATTENTION, HEADS = 320, (1, 2, 4, 4), (True, True, True, False), 8
    TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 768, 12, 12
    VAE_WIDTH, VAE_MULT, VAE_BLOCKS = 128, (1, 2, 4, 4), 3
    with safe_open(path, "pt") as f:
        tensors.update({k: f.get_tensor(k).float() for k in f.keys() if k.startswith((TEXT, UNET, VAE))})
    out, ids = {}, torch.tensor([frame(PROMPT), frame(NEGATIVE)])
    out["text.ids"], out["text.out"] = ids.float(), encode_text(ids)
    networks(out, out["text.out"])
    save(out, vectors)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--checkpoint"]:
        check_checkpoint(*sys.argv[2:])
    else:
        main()
