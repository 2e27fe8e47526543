"""The writer's network: a small llama (RMS norm, rotary positions, SwiGLU, tied embeddings).

Every size is in CONFIG; export.py writes the same numbers into the GGUF.  Rotary positions are
applied to halves of a head (fast in PyTorch); llama.cpp rotates neighbouring pairs, so export.py
reorders the rows of the query and key matrices.  Attention is written out instead of calling
scaled_dot_product_attention, whose bf16 backward pass is slow on CPUs.
"""

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "vocab": 2048,
    "width": 256,
    "layers": 6,
    "heads": 4,
    "ffn": 640,
    "context": 1024,
    "rope_base": 10000.0,
    "eps": 1e-5,
}


def normed(x, eps):
    """x / rms(x) over the last dimension; the norms' gains ride on the next matrix (see Block)."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def rotate(x, cos, sin):
    """x [B, T, 2, H, D] with cos, sin [T, 1, 1, D/2]: the first half of D pairs with the second."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Block(nn.Module):
    """One transformer layer; x [B, T, width].  A norm's gain scales the columns of the matrix behind it,
    which costs a product of the matrix instead of one of the activations."""

    def __init__(self, c):
        super().__init__()
        w = c["width"]
        self.heads, self.eps = c["heads"], c["eps"]
        self.attn_norm = nn.Parameter(torch.ones(w))
        self.qkv = nn.Linear(w, 3 * w, bias=False)
        self.out = nn.Linear(w, w, bias=False)
        self.ffn_norm = nn.Parameter(torch.ones(w))
        self.gate_up = nn.Linear(w, 2 * c["ffn"], bias=False)
        self.down = nn.Linear(c["ffn"], w, bias=False)

    def forward(self, x, cos, sin, mask):
        b, t, w = x.shape
        d = w // self.heads
        qkv = F.linear(normed(x, self.eps), self.qkv.weight * self.attn_norm).view(b, t, 3, self.heads, d)
        q, k = rotate(qkv[:, :, :2], cos, sin).permute(2, 0, 3, 1, 4)
        v = qkv[:, :, 2].transpose(1, 2)
        scores = torch.matmul(q * d**-0.5, k.transpose(-1, -2)) + mask
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, w))
        gate, up = F.linear(normed(x, self.eps), self.gate_up.weight * self.ffn_norm).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Writer(nn.Module):
    """tokens [B, T] -> hidden states [B, T, width]; logits() turns chosen ones into scores."""

    def __init__(self, c=CONFIG):
        super().__init__()
        self.config = c
        self.embed = nn.Embedding(c["vocab"], c["width"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.Parameter(torch.ones(c["width"]))
        d = c["width"] // c["heads"]
        freq = c["rope_base"] ** (-torch.arange(0, d, 2).float() / d)
        angle = torch.outer(torch.arange(c["context"]).float(), freq)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / ((2 * c["layers"]) ** 0.5 if deep else 1.0))

    def forward(self, tokens):
        t = tokens.shape[1]
        x = self.embed(tokens)
        kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        cos, sin = (a[:t, None, None].to(kind) for a in (self.cos, self.sin))
        mask = torch.full((t, t), -1e9, dtype=kind).triu(1)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return normed(x, self.config["eps"])

    def logits(self, hidden):
        return F.linear(hidden, self.embed.weight * self.norm)
