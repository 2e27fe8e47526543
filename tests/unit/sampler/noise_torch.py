#!/usr/bin/env python3
"""Prints what PyTorch's CPU generator gives, for test_noise.c. Needs python3-torch (Debian 14)."""
import torch


def show(name, values):
    print(name, ", ".join(f"{v:.6f}" for v in values))


for seed in (0, 42, 2**33 + 5):
    g = torch.Generator().manual_seed(seed)
    show(f"seed {seed}, 5 and 4 more:", torch.randn(5, generator=g).tolist() + torch.randn(4, generator=g).tolist())
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(64, generator=g)
    show(f"seed {seed}, of 64:", x[:8].tolist() + x[-2:].tolist())
    show("  then of 16:", torch.randn(16, generator=g)[:4].tolist())
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(21, generator=g)
    show(f"seed {seed}, of 21:", x[:5].tolist() + x[-3:].tolist())
g = torch.Generator().manual_seed(7)
torch.randn(4 * 64 * 64, generator=g)
show("seed 7, after 16384, 16 more:", torch.randn(16, generator=g)[:4].tolist())


def mixed(a, b, strength):
    """Along a sphere, each column [C, :, W] by itself."""
    angle = torch.acos((a / a.norm(dim=1, keepdim=True) * (b / b.norm(dim=1, keepdim=True))).sum(1, keepdim=True))
    return (torch.sin((1 - strength) * angle) * a + torch.sin(strength * angle) * b) / torch.sin(angle)


a, b = (torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(seed)) for seed in (42, 43))
out = mixed(a, b, 0.3)
show("seeds 42 and 43 of 4x8x6, mixed 0.3, channel 1, row 2:", out[1, 2].tolist())
show("  channel 3, row 7:", out[3, 7].tolist())
