#!/usr/bin/env python3
"""Makes sampler.json: sigmas, and latents that each sampler reaches on a toy denoiser.

Needs numpy only. It computes in double and from the formulas, not from Mysti's code: time as -log(sigma), the
derivative form of Euler, the ancestral step written out, so that a slip there is not repeated here.
    make_vectors.py > sampler.json

The toy denoiser pulls towards a fixed picture, more the less noise there is, with a bend that makes the
order of a method visible:  D(x, s) = (m + tanh(x / (1 + s)) * s * 0.3) / (1 + 0.1 s),  m_i = sin(i).
Noise of step k (euler_a) is call k of Philox 4x32-10 with seed 5, the generator of CUDA, written out below.
"""
import json

import numpy as np

COUNT = 8


def philox(seed, call, n):
    out = []
    for i in range(n):
        c, key = [call, 0, i, 0], [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [b >> 32 ^ c[1] ^ key[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ key[1], a & 0xFFFFFFFF]
            key = [key[0] + 0x9E3779B9 & 0xFFFFFFFF, key[1] + 0xBB67AE85 & 0xFFFFFFFF]
        u, v = c[0] / 2 ** 32 + 2 ** -33, (c[1] / 2 ** 32 + 2 ** -33) * 2 * np.pi
        out.append((-2 * np.log(u)) ** 0.5 * np.sin(v))
    return np.array(out)


def table():
    betas = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=np.float64) ** 2
    product = np.cumprod(1 - betas)
    return np.sqrt((1 - product) / product)


def normal(sigmas, n):
    t = np.linspace(999, 0, n)
    return np.append(np.exp(np.interp(t, np.arange(1000), np.log(sigmas))), 0)


def karras(sigmas, n):
    ramp = np.linspace(0, 1, n)
    low, high = sigmas[0] ** (1 / 7), sigmas[-1] ** (1 / 7)
    return np.append((high + ramp * (low - high)) ** 7, 0)


def denoise(x, s):
    m = np.sin(np.arange(COUNT))
    return (m + np.tanh(x / (1 + s)) * s * 0.3) / (1 + 0.1 * s)


def euler(x, sigmas):
    for s, s2 in zip(sigmas[:-1], sigmas[1:]):
        d = (x - denoise(x, s)) / s
        x = x + d * (s2 - s)
    return x


def euler_a(x, sigmas):
    for k, (s, s2) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        den = denoise(x, s)
        up = min(s2, (s2 ** 2 * (s ** 2 - s2 ** 2) / s ** 2) ** 0.5)
        down = (s2 ** 2 - up ** 2) ** 0.5
        x = x + (x - den) / s * (down - s)
        if s2 > 0:
            x = x + philox(5, k, COUNT) * up
    return x


def dpmpp_2m(x, sigmas):
    old = None
    for i in range(len(sigmas) - 1):
        s, s2 = sigmas[i], sigmas[i + 1]
        den = denoise(x, s)
        if s2 == 0:
            x = den
            continue
        t, t2 = -np.log(s), -np.log(s2)
        h = t2 - t
        if old is None:
            target = den
        else:
            r = (t - -np.log(sigmas[i - 1])) / h
            target = (1 + 1 / (2 * r)) * den - (1 / (2 * r)) * old
        x = s2 / s * x - np.expm1(-h) * target
        old = den
    return x


def main():
    sigmas = table()
    out = {"table": {str(i): sigmas[i] for i in (0, 1, 250, 500, 750, 998, 999)}, "runs": []}
    for schedule in (normal, karras):
        for steps in (1, 2, 5, 20):
            chosen = schedule(sigmas, steps)
            for sampler in (euler, euler_a, dpmpp_2m):
                start = np.cos(3 * np.arange(COUNT)) * chosen[0]
                out["runs"].append({"scheduler": schedule.__name__, "sampler": sampler.__name__, "steps": steps,
                                    "sigmas": chosen.tolist(), "start": start.tolist(),
                                    "end": sampler(start, chosen).tolist()})
    print(json.dumps(out, indent=None).replace('{"scheduler"', '\n{"scheduler"'))


if __name__ == "__main__":
    main()
