#!/usr/bin/env python3
"""Stable Diffusion 1.5's networks in plain PyTorch modules, with random weights: what bench_engine is measured against.

    torch_sd15.py measure [--size 512] [--steps 7] [--decodes 3] [--threads 2]     one line of JSON
    torch_sd15.py save OUT.safetensors                                             a checkpoint of the same shapes, f16

Needs only torch. bf16, channels_last, scaled_dot_product_attention: the quickest that PyTorch offers on a CPU without
being compiled. Parameters have the names of the single-file checkpoints, so that `save` writes something every SD 1.x
loader reads (the VAE's encoder is left out: nothing here needs it)."""
import argparse
import json
import statistics
import struct
import time

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, MULTIPLIERS, HEADS, CONTEXT = 320, (1, 2, 4, 4), 8, 768


class ResBlock(nn.Module):
    def __init__(self, cin, cout, time_width=4 * WIDTH):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, cout))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, cout), nn.SiLU(), nn.Identity(),
                                        nn.Conv2d(cout, cout, 3, padding=1))
        self.skip_connection = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, emb, context):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    def __init__(self, width, context):
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x, context):
        n, t, c = x.shape
        q, k, v = (p.view(n, -1, HEADS, c // HEADS).transpose(1, 2)
                   for p in (self.to_q(x), self.to_k(context), self.to_v(context)))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(y.transpose(1, 2).reshape(n, t, c))


class Geglu(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(Geglu(width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn1 = Attention(width, width)
        self.attn2 = Attention(width, CONTEXT)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([Block(width)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x, emb, context):
        n, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).reshape(n, h * w, c)
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y.reshape(n, h, w, c).permute(0, 3, 1, 2))


class Downsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x, emb, context):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, emb=None, context=None):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Conv(nn.Conv2d):
    def forward(self, x, emb=None, context=None):
        return super().forward(x)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.SiLU(), nn.Linear(4 * WIDTH, 4 * WIDTH))
        inputs, outputs, skips, width = [[Conv(4, WIDTH, 3, padding=1)]], [], [WIDTH], WIDTH
        for level, m in enumerate(MULTIPLIERS):
            for _ in range(2):
                inputs.append([ResBlock(width, WIDTH * m)] + ([SpatialTransformer(WIDTH * m)] if level < 3 else []))
                width = WIDTH * m
                skips.append(width)
            if level < 3:
                inputs.append([Downsample(width)])
                skips.append(width)
        self.middle_block = nn.ModuleList([ResBlock(width, width), SpatialTransformer(width), ResBlock(width, width)])
        for level, m in reversed(list(enumerate(MULTIPLIERS))):
            for i in range(3):
                layers = [ResBlock(width + skips.pop(), WIDTH * m)]
                width = WIDTH * m
                if level < 3:
                    layers.append(SpatialTransformer(width))
                if level and i == 2:
                    layers.append(Upsample(width))
                outputs.append(layers)
        self.input_blocks = nn.ModuleList(nn.ModuleList(b) for b in inputs)
        self.output_blocks = nn.ModuleList(nn.ModuleList(b) for b in outputs)
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x, t, context):
        half = WIDTH // 2
        f = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(half) / half) * t[:, None]
        emb = self.time_embed(torch.cat([f.cos(), f.sin()], dim=1).to(x.dtype))
        skips = []
        for block in self.input_blocks:
            for layer in block:
                x = layer(x, emb, context)
            skips.append(x)
        for layer in self.middle_block:
            x = layer(x, emb, context)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], dim=1)
            for layer in block:
                x = layer(x, emb, context)
        return self.out(x)


class VaeBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, cin, eps=1e-6), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, cout, eps=1e-6), nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VaeAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (p(y).permute(0, 2, 3, 1).reshape(n, 1, h * w, c) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(y.reshape(n, h, w, c).permute(0, 3, 1, 2))


class Named(nn.Module):
    """An empty module to hang parts on, for the names' sake."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.post_quant_conv = nn.Conv2d(4, 4, 1)
        d = self.decoder = Named(conv_in=nn.Conv2d(4, 512, 3, padding=1))
        d.mid = Named(block_1=VaeBlock(512, 512), attn_1=VaeAttention(512), block_2=VaeBlock(512, 512))
        width, levels = 512, {}
        for level, m in ((3, 4), (2, 4), (1, 2), (0, 1)):
            blocks = nn.ModuleList()
            for _ in range(3):
                blocks.append(VaeBlock(width, 128 * m))
                width = 128 * m
            levels[level] = Named(block=blocks, **({"upsample": Upsample(width)} if level else {}))
        d.up = nn.ModuleList(levels[i] for i in range(4))
        d.norm_out, d.conv_out = nn.GroupNorm(32, width, eps=1e-6), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z):
        d = self.decoder
        x = d.conv_in(self.post_quant_conv(z))
        x = d.mid.block_2(d.mid.attn_1(d.mid.block_1(x)))
        for level in (3, 2, 1, 0):
            for block in d.up[level].block:
                x = block(x)
            if level:
                x = d.up[level].upsample(x)
        return d.conv_out(F.silu(d.norm_out(x)))


def text_model():
    """CLIP ViT-L/14's text encoder: the parameters only."""
    layers = nn.ModuleList()
    for _ in range(12):
        attention = Named(**{f"{p}_proj": nn.Linear(768, 768) for p in ("k", "v", "q", "out")})
        layers.append(Named(self_attn=attention, layer_norm1=nn.LayerNorm(768), layer_norm2=nn.LayerNorm(768),
                            mlp=Named(fc1=nn.Linear(768, 3072), fc2=nn.Linear(3072, 768))))
    embeddings = Named(token_embedding=nn.Embedding(49408, 768), position_embedding=nn.Embedding(77, 768))
    return Named(embeddings=embeddings, encoder=Named(layers=layers), final_layer_norm=nn.LayerNorm(768))


def save(path):
    parts = {"model.diffusion_model.": UNet(), "first_stage_model.": Decoder(),
             "cond_stage_model.transformer.text_model.": text_model()}
    tensors = {p + n: t for p, module in parts.items() for n, t in module.state_dict().items()}
    header, at = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(t.shape), "data_offsets": [at, at + 2 * t.numel()]}
        at += 2 * t.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.to(torch.float16).contiguous().numpy().tobytes())


def times_of(work, runs, name):
    work()  # fresh memory, lazy initialisation
    wall, cpu = [], []
    for _ in range(runs):
        start, start_cpu = time.monotonic(), time.process_time()
        work()
        wall.append(time.monotonic() - start)
        cpu.append(time.process_time() - start_cpu)
    return {f"{name}_s": statistics.median(wall), f"{name}_best_s": min(wall), f"{name}_cpu_s": min(cpu)}


@torch.inference_mode()
def measure(size, steps, decodes, threads):
    torch.set_num_threads(threads)
    latent = size // 8
    result = {"torch": torch.__version__, "size": size, "threads": threads}

    def ready(module):
        return module.to(torch.bfloat16).to(memory_format=torch.channels_last).eval()

    def picture(n):
        return torch.randn(n, 4, latent, latent).to(torch.bfloat16).to(memory_format=torch.channels_last)

    if steps:
        unet, x, context = ready(UNet()), picture(2), torch.randn(2, 77, CONTEXT).to(torch.bfloat16)
        result |= times_of(lambda: unet(x, torch.tensor([500.0]), context), steps, "step")
        del unet
    if decodes:
        vae, z = ready(Decoder()), picture(1)
        result |= times_of(lambda: vae(z), decodes, "decode")
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    m = commands.add_parser("measure")
    for name, value in (("--size", 512), ("--steps", 7), ("--decodes", 3), ("--threads", 2)):
        m.add_argument(name, type=int, default=value)
    commands.add_parser("save").add_argument("out")
    a = parser.parse_args()
    if a.command == "save":
        torch.manual_seed(1)
        save(a.out)
    else:
        measure(a.size, a.steps, a.decodes, a.threads)


main()
