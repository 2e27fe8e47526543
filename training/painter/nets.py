"""The painter's four networks in PyTorch, with SD 1.x's names, order of operations and constants.

A module's state dict carries the exact key names of an SD 1.x single file once its prefix is put before it
(see export.py), so nothing is ever renamed. What is small is only the sizes:

  TextEncoder  CLIP's text tower: pre-norm, causal, quick GELU, a final layer norm
  UNet         time embedding, residual blocks, spatial transformers (GEGLU), nearest upsampling
  Encoder, Decoder   the two halves of the 8x autoencoder; the latent has four channels

Group norms have the largest divisor of C that is at most min(32, C/4) groups: 32 at every real SD width,
sensible at small ones. Their epsilon is 1e-5 in the U-Net's residual blocks and 1e-6 everywhere else.

Attention is written out as softmax(q k^T) v: on processors the fused kernel's backward pass in bf16 takes
most of a training step. Everything stays NCHW for the same reason (group norm's backward).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def groups(channels):
    """Number of groups of a group norm over so many channels."""
    most = min(32, channels // 4)
    return next(g for g in range(most, 0, -1) if channels % g == 0)


def group_norm(channels, eps):
    return nn.GroupNorm(groups(channels), channels, eps=eps)


def conv(cin, cout, kernel=3, stride=1):
    return nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2 if stride == 1 or kernel > 1 else 0)


def attention(q, k, v, mask=None):
    """softmax(q k^T / sqrt(d)) v over [..., tokens, d]; mask is added before the softmax."""
    scores = q @ (k * q.shape[-1] ** -0.5).transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1).to(v.dtype) @ v


# ---------------------------------------------------------------------------------------------- text


class ClipAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (p(x).view(b, n, self.heads, c // self.heads).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        mask = torch.full((n, n), -1e4, dtype=q.dtype).triu(1)
        return self.out_proj(attention(q, k, v, mask).transpose(1, 2).reshape(b, n, c))


class ClipMlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class ClipLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = ClipAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = ClipMlp(width)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, tokens, width):
        super().__init__()
        self.token_embedding = nn.Embedding(tokens, width)
        self.position_embedding = nn.Embedding(77, width)
        nn.init.normal_(self.token_embedding.weight, std=0.4)
        nn.init.normal_(self.position_embedding.weight, std=0.05)


class ClipLayers(nn.Module):
    def __init__(self, width, heads, layers):
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(width, heads) for _ in range(layers)])


class TextEncoder(nn.Module):
    """[B, n] token numbers -> [B, n, width]; `tokens` rows in the table (few while training)."""

    def __init__(self, tokens, width=64, heads=1, layers=4):
        super().__init__()
        self.embeddings = ClipEmbeddings(tokens, width)
        self.encoder = ClipLayers(width, heads, layers)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, ids):
        e = self.embeddings
        x = e.token_embedding(ids) + e.position_embedding.weight[: ids.shape[1]]
        for layer in self.encoder.layers:
            x = layer(x)
        return self.final_layer_norm(x)


# ---------------------------------------------------------------------------------------- autoencoder


class VaeResBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.norm1 = group_norm(cin, 1e-6)
        self.conv1 = conv(cin, cout)
        self.norm2 = group_norm(cout, 1e-6)
        self.conv2 = conv(cout, cout)
        if cin != cout:
            self.nin_shortcut = conv(cin, cout, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class VaeAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = group_norm(c, 1e-6)
        self.q, self.k, self.v, self.proj_out = (conv(c, c, 1) for _ in range(4))
        nn.init.zeros_(self.proj_out.weight)

    def forward(self, x):
        b, c, h, w = x.shape
        n = self.norm(x)
        q, k, v = (p(n).reshape(b, c, h * w).transpose(1, 2) for p in (self.q, self.k, self.v))
        return x + self.proj_out(attention(q, k, v).transpose(1, 2).reshape(b, c, h, w))


class VaeMiddle(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.block_1 = VaeResBlock(c, c)
        self.attn_1 = VaeAttention(c)
        self.block_2 = VaeResBlock(c, c)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class VaeDownsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, 2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class VaeUpsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv(c, c)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class VaeLevel(nn.Module):
    """`down.N` or `up.N`: residual blocks, then one change of size unless it is the last."""

    def __init__(self, cin, cout, blocks, resize=None):
        super().__init__()
        self.block = nn.ModuleList([VaeResBlock(cin if i == 0 else cout, cout) for i in range(blocks)])
        if resize == "down":
            self.downsample = VaeDownsample(cout)
        if resize == "up":
            self.upsample = VaeUpsample(cout)

    def forward(self, x):
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    """[B, 3, H, W] in -1..1 -> [B, 8, H/8, W/8], before quant_conv."""

    def __init__(self, base, mult):
        super().__init__()
        self.conv_in = conv(3, base)
        self.down = nn.ModuleList()
        c = base
        for i, m in enumerate(mult):
            self.down.append(VaeLevel(c, base * m, 2, "down" if i < len(mult) - 1 else None))
            c = base * m
        self.mid = VaeMiddle(c)
        self.norm_out = group_norm(c, 1e-6)
        self.conv_out = conv(c, 8)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """[B, 4, h, w] after post_quant_conv -> [B, 3, 8h, 8w]."""

    def __init__(self, base, mult):
        super().__init__()
        c = base * mult[-1]
        self.conv_in = conv(4, c)
        self.mid = VaeMiddle(c)
        up = []
        for i, m in reversed(list(enumerate(mult))):
            up.insert(0, VaeLevel(c, base * m, 3, "up" if i else None))
            c = base * m
        self.up = nn.ModuleList(up)
        self.norm_out = group_norm(c, 1e-6)
        self.conv_out = conv(c, 3)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


# ---------------------------------------------------------------------------------------------- U-Net


class ResBlock(nn.Module):
    def __init__(self, cin, cout, emb):
        super().__init__()
        self.in_layers = nn.Sequential(group_norm(cin, 1e-5), nn.SiLU(), conv(cin, cout))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, cout))
        self.out_layers = nn.Sequential(group_norm(cout, 1e-5), nn.SiLU(), nn.Identity(), conv(cout, cout))
        if cin != cout:
            self.skip_connection = conv(cin, cout, 1)
        nn.init.zeros_(self.out_layers[3].weight)
        nn.init.zeros_(self.out_layers[3].bias)

    def forward(self, x, emb, context):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return (self.skip_connection(x) if hasattr(self, "skip_connection") else x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x, context):
        b, n, c = x.shape
        q, k, v = (t.view(b, -1, self.heads, c // self.heads).transpose(1, 2)
                   for t in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out(attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class Geglu(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(Geglu(width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads)
        self.attn2 = CrossAttention(width, context, heads)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.norm = group_norm(width, 1e-6)
        self.proj_in = conv(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context, heads)])
        self.proj_out = conv(width, width, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x, emb, context):
        b, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).reshape(b, c, h * w).transpose(1, 2)
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y.transpose(1, 2).reshape(b, c, h, w))


class Downsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, 2, padding=1)

    def forward(self, x, emb, context):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv(c, c)

    def forward(self, x, emb, context):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ConvIn(nn.Conv2d):
    def forward(self, x, emb, context):
        return super().forward(x)


class UNet(nn.Module):
    """x [B, 4, h, w], t [B] (0..999, may be fractional), context [B, 77, width of the text] -> [B, 4, h, w]."""

    def __init__(self, width, mult, attention_at, context, heads, blocks=2):
        super().__init__()
        self.width = width
        emb = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.input_blocks = nn.ModuleList([nn.ModuleList([ConvIn(4, width, 3, padding=1)])])
        c, skips = width, [width]
        for level, m in enumerate(mult):
            for _ in range(blocks):
                block = [ResBlock(c, width * m, emb)]
                c = width * m
                if attention_at[level]:
                    block.append(SpatialTransformer(c, context, heads))
                self.input_blocks.append(nn.ModuleList(block))
                skips.append(c)
            if level < len(mult) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(c)]))
                skips.append(c)
        self.middle_block = nn.ModuleList(
            [ResBlock(c, c, emb), SpatialTransformer(c, context, heads), ResBlock(c, c, emb)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(mult))):
            for i in range(blocks + 1):
                block = [ResBlock(c + skips.pop(), width * mult[level], emb)]
                c = width * mult[level]
                if attention_at[level]:
                    block.append(SpatialTransformer(c, context, heads))
                if level and i == blocks:
                    block.append(Upsample(c))
                self.output_blocks.append(nn.ModuleList(block))
        self.out = nn.Sequential(group_norm(c, 1e-5), nn.SiLU(), conv(c, 4))
        nn.init.zeros_(self.out[2].weight)
        nn.init.zeros_(self.out[2].bias)

    def forward(self, x, t, context):
        half = self.width // 2
        angle = t[:, None].float() * torch.exp(-math.log(10000.0) * torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], 1))
        skips = []
        for block in self.input_blocks:
            for module in block:
                x = module(x, emb, context)
            skips.append(x)
        for module in self.middle_block:
            x = module(x, emb, context)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], 1)
            for module in block:
                x = module(x, emb, context)
        return self.out(x)


def parameters_of(module):
    return sum(p.numel() for p in module.parameters())
