"""The noise schedule of SD 1.x, v-prediction, and an Euler sampler with guidance as the engine has it.

With ac the cumulative product of 1 - beta: x_t = sqrt(ac) z + sqrt(1 - ac) n, v = sqrt(ac) n - sqrt(1 - ac) z.
In the sampler's own scale (x = z + sigma n, sigma = sqrt((1 - ac) / ac)) the network sees x / sqrt(sigma^2 + 1) and
    denoised = x / (sigma^2 + 1) - v sigma / sqrt(sigma^2 + 1).
Guidance mixes two v of the same x: v_u + s (v_c - v_u), which is the same as mixing the denoised pictures.
"""

import math

import torch

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
AC = torch.cumprod(1 - BETAS, 0)
SIGMAS = ((1 - AC) / AC).sqrt()


def noised(z, noise, t):
    """(x_t, the v that the network is to answer); t [B] whole numbers."""
    ac = AC.float()[t].view(-1, 1, 1, 1)
    return ac.sqrt() * z + (1 - ac).sqrt() * noise, ac.sqrt() * noise - (1 - ac).sqrt() * z


def normal_schedule(steps):
    """(t, sigma) of each step, t evenly from 999 to 0, sigma interpolated in its logarithm; then sigma 0."""
    t = torch.linspace(999, 0, steps, dtype=torch.float64)
    low = t.floor().long().clamp(max=998)
    log = SIGMAS.log()
    sigma = (log[low] + (t - low) * (log[low + 1] - log[low])).exp()
    return t.tolist(), sigma.tolist() + [0.0]


@torch.no_grad()
def sample(unet, context, negative, noise, steps=20, scale=4.0):
    """context, negative [B, 77, C]; noise [B, 4, h, w] of unit variance -> latents [B, 4, h, w]."""
    t, sigma = normal_schedule(steps)
    x = noise * sigma[0]
    for i in range(steps):
        shrink = 1 / math.sqrt(sigma[i] ** 2 + 1)
        with torch.autocast("cpu", torch.bfloat16):
            times = torch.full((2 * len(x),), t[i])
            v = unet(torch.cat([x * shrink] * 2), times, torch.cat([context, negative])).float()
        conditional, unconditional = v.chunk(2)
        v = unconditional + scale * (conditional - unconditional)
        denoised = x * shrink**2 - v * sigma[i] * shrink
        x = x + (x - denoised) / sigma[i] * (sigma[i + 1] - sigma[i])
    return x
