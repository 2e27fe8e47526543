#!/usr/bin/env python3
"""Makes sampler.json: noise levels, and latents that each sampler reaches on a toy denoiser.

Needs numpy only. It computes in double and from the formulas, not from Mysti's code: time as -log(sigma), slopes
written out, integrals as sums, a Brownian tree that recurses and remembers, so that a slip there is not repeated here.
    make_vectors.py > sampler.json

The toy denoiser pulls towards a fixed picture, more the less noise there is, with a bend that makes the
order of a method visible:  D(x, s) = (m + 0.3 (s + 0.5) tanh(x / (1 + s))) / (1 + 0.1 s),  m_i = sin(i); its half
without the prompt is 0.8 D. Noise is call 0, 1, ... of Philox 4x32-10 with seed 5, the generator of CUDA, written
out below; the Brownian path is torchsde's with seed 5, its nodes drawn from the same generator.
"""
import json
from math import exp, expm1, log, sqrt

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


class Noise:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return philox(5, self.calls - 1, COUNT)


class Tree:
    """torchsde.BrownianTree(t0, t1, entropy=seed): levels rounded to 1e-6, dyadic halves, numpy's seeds."""

    def __init__(self, low, high, seed=5):
        self.seed, self.known = seed, {}
        whole = philox(int(np.random.SeedSequence(seed, pool_size=24).generate_state(3)[0]), 0, COUNT)
        self.known[(0, 0)] = whole * sqrt(high - low)
        self.low, self.high = round(float(low), 6), round(float(high), 6)   # numpy's own round() is another one

    def halves(self, key, depth, start, end, middle):
        if (2 * key, depth + 1) not in self.known:
            w = self.known[(key, depth)]
            state = np.random.SeedSequence(self.seed, spawn_key=(key, depth), pool_size=24).generate_state(4)
            left = (middle - start) * w / (end - start) + \
                sqrt((middle - start) * (end - middle) / (end - start)) * philox(int(state[0]), 0, COUNT)
            self.known[(2 * key, depth + 1)], self.known[(2 * key + 1, depth + 1)] = left, w - left

    def part(self, a, b, key, depth, start, end):
        if a == start and b == end:
            return self.known[(key, depth)]
        middle = round(0.5 * (start + end), 6)
        self.halves(key, depth, start, end, middle)
        out = 0
        if a < middle:
            out = out + self.part(a, min(b, middle), 2 * key, depth + 1, start, middle)
        if b > middle:
            out = out + self.part(max(a, middle), b, 2 * key + 1, depth + 1, middle, end)
        return out

    def __call__(self, s, s2):
        return -self.part(round(float(s2), 6), round(float(s), 6), 0, 0, self.low, self.high) / sqrt(s - s2)


# ---- noise levels ----

def table():
    betas = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=np.float64) ** 2
    product = np.cumprod(1 - betas)
    return np.sqrt((1 - product) / product)


TABLE = table()
LOW, HIGH = TABLE[0], TABLE[-1]


def sigma_at(t):
    return np.exp(np.interp(t, np.arange(1000), np.log(TABLE)))


def time_at(sigma):
    return np.interp(np.log(sigma), np.log(TABLE), np.arange(1000))


def beta_ppf(p):
    """Beta(0.6, 0.6), with x = sin(a)^2 its density is sin(2a)^0.2; the power's kinks are met by a fine grid in a^1.2."""
    u = np.linspace(0, (np.pi / 4) ** 1.2, 400001)
    a = u ** (1 / 1.2)
    f = np.ones_like(u)
    f[1:] = (np.sin(2 * a[1:]) / a[1:]) ** 0.2   # the density divided by a^0.2, which du takes with it
    f[0] = 2 ** 0.2
    half = np.concatenate([[0], np.cumsum((f[1:] + f[:-1]) / 2)])
    half = half / half[-1] / 2
    q = np.minimum(p, 1 - p)
    x = np.sin(np.interp(q, half, u) ** (1 / 1.2)) ** 2
    return np.where(p <= 0.5, x, 1 - x)


def karras_levels(n, low, high, rho=7):
    r = np.linspace(0, 1, n)
    return (high ** (1 / rho) + r * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def levels(name, n, dialect, rho=None):
    comfy = dialect == "comfy"
    if name == "normal":
        return sigma_at(np.linspace(999, 0, n))
    if name == "simple":
        return np.array([TABLE[-1 - int(i * 1000 / n)] for i in range(n)])
    if name == "karras":
        return karras_levels(n, LOW, HIGH, rho or 7)
    if name == "polyexponential":
        return np.exp(np.linspace(1, 0, n) ** (rho or 1) * (log(HIGH) - log(LOW)) + log(LOW))
    if name == "exponential":
        return np.exp(np.linspace(log(HIGH), log(LOW), n))
    if name == "sgm_uniform":
        return sigma_at(np.linspace(999, 0, n + 1)[:-1])
    if name == "ddim_uniform":
        return TABLE[1::1000 // n][::-1]
    if name == "beta" and comfy:
        t = np.rint(beta_ppf(1 - np.arange(n) / n) * 999).astype(int)
        return TABLE[[v for i, v in enumerate(t) if i == 0 or v != t[i - 1]]]
    if name == "beta":
        return LOW + beta_ppf(1 - np.linspace(0, 1, n)) * (HIGH - LOW)
    if name == "kl_optimal" and comfy:
        r = np.linspace(0, 1, n)
        return np.tan(r * np.arctan(LOW) + (1 - r) * np.arctan(HIGH))
    if name == "ays":
        rows = [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, .9642583904,
                .6523686016, .3977456272, .1515232662, .0291671582] if comfy else \
            [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, .963, .652, .399, .152, .029]
        count = n + 1 if comfy else n
        points = np.exp(np.interp(np.linspace(0, 1, count), np.linspace(0, 1, 11), np.log(rows)))
        return points[:n]
    if name == "turbo":
        parts = 10 if comfy and n < 10 else n
        t = np.rint(np.arange(1, parts + 1) * (1000 / parts) - 1).astype(int)[::-1][:n]
        return TABLE[np.clip(t, 0, 999)]
    if name == "linear_quadratic":
        if n == 1:
            return np.array([HIGH])
        linear = n // 2
        rest = n - linear
        over = linear - 0.025 * n
        c2 = over / (linear * rest ** 2)
        c1 = 0.025 / linear - 2 * over / rest ** 2
        done = [i * 0.025 / linear for i in range(linear)] + [c2 * i * i + c1 * i + c2 * linear ** 2
                                                              for i in range(linear, n)]
        return (1 - np.array(done)) * HIGH
    raise SystemExit(name)


def schedule(name, n, dialect="a1111", discards=False, rho=None):
    if name == "timesteps":
        t = np.clip(np.arange(0, 1000, 1000 // n) + 1, 0, 999)
        return TABLE[t][::-1]
    if name == "kl_optimal" and dialect == "a1111":
        r = np.arange(n + 1) / n
        return np.tan(r * np.arctan(LOW) + (1 - r) * np.arctan(HIGH))
    out = np.append(levels(name, n + discards, dialect, rho), 0)
    return np.delete(out, -2) if discards else out


# ---- samplers ----

def denoise(x, s):
    m = np.sin(np.arange(COUNT))
    return (m + np.tanh(x / (1 + s)) * (s + 0.5) * 0.3) / (1 + 0.1 * s)


def slope(x, s):
    return (x - denoise(x, s)) / s


def pairs(sigmas):
    return enumerate(zip(sigmas[:-1], sigmas[1:]))


def ancestral(s, s2, eta):
    up = min(s2, eta * (s2 ** 2 * (s ** 2 - s2 ** 2) / s ** 2) ** 0.5)
    return (s2 ** 2 - up ** 2) ** 0.5, up


def churned(method):
    def walk(x, sigmas, noise, s_churn=0, s_tmin=0, s_tmax=1e9, s_noise=1, **_):
        for _, (s, s2) in pairs(sigmas):
            gamma = min(s_churn / (len(sigmas) - 1), sqrt(2) - 1) if s_tmin <= s <= s_tmax else 0
            if gamma > 0:
                x = x + noise() * s_noise * (((1 + gamma) * s) ** 2 - s ** 2) ** 0.5
            x = method(x, s * (1 + gamma), s2)
        return x
    walk.__name__ = method.__name__
    return walk


@churned
def euler(x, s, s2):
    return x + slope(x, s) * (s2 - s)


@churned
def heun(x, s, s2):
    d = slope(x, s)
    there = x + d * (s2 - s)
    return there if s2 == 0 else x + (d + slope(there, s2)) / 2 * (s2 - s)


@churned
def dpm2(x, s, s2):
    if s2 == 0:
        return denoise(x, s)
    middle = exp((log(s) + log(s2)) / 2)
    return x + slope(x + slope(x, s) * (middle - s), middle) * (s2 - s)


def euler_a(x, sigmas, noise, eta=1, s_noise=1, **_):
    for _, (s, s2) in pairs(sigmas):
        down, up = ancestral(s, s2, eta)
        x = x + slope(x, s) * (down - s)
        if s2 > 0 and up > 0:
            x = x + noise() * s_noise * up
    return x


def ddim(x, sigmas, noise, eta=0, **_):
    """In the variance preserving form: z = x sqrt(a), a = 1 / (1 + s^2)."""
    z = x / sqrt(1 + sigmas[0] ** 2)
    for _, (s, s2) in pairs(sigmas):
        a, a2 = 1 / (1 + s ** 2), 1 / (1 + s2 ** 2)
        den = denoise(z / sqrt(a), s)
        e = (z - sqrt(a) * den) / sqrt(1 - a)
        fresh = eta * sqrt((1 - a2) / (1 - a) * (1 - a / a2))
        z = sqrt(a2) * den + sqrt(1 - a2 - fresh ** 2) * e + (fresh * noise() if fresh > 0 else 0)
    return z * sqrt(1 + sigmas[-1] ** 2)


def ddim_cfg_pp(x, sigmas, noise, **_):
    z = x / sqrt(1 + sigmas[0] ** 2)
    for _, (s, s2) in pairs(sigmas):
        a, a2 = 1 / (1 + s ** 2), 1 / (1 + s2 ** 2)
        den = denoise(z / sqrt(a), s)
        e = (z - sqrt(a) * 0.8 * den) / sqrt(1 - a)
        z = sqrt(a2) * den + sqrt(1 - a2) * e
    return z * sqrt(1 + sigmas[-1] ** 2)


def dpm2_a(x, sigmas, noise, eta=1, **_):
    for _, (s, s2) in pairs(sigmas):
        down, up = ancestral(s, s2, eta)
        if down == 0:
            x = denoise(x, s)
            continue
        middle = exp((log(s) + log(down)) / 2)
        x = x + slope(x + slope(x, s) * (middle - s), middle) * (down - s) + noise() * up
    return x


def dpm_step(order, x, s, s2, r1=None):
    """DPM-Solver in the noise e = (x - D) / s over t = -log(s)."""
    h = log(s / s2)
    e = slope(x, s)
    if order == 1:
        return x - s2 * expm1(h) * e
    r1 = r1 or (1 / 2 if order == 2 else 1 / 3)
    at1 = exp(log(s) - r1 * h)
    e1 = slope(x - at1 * expm1(r1 * h) * e, at1)
    if order == 2:
        return x - s2 * expm1(h) * e - s2 / (2 * r1) * expm1(h) * (e1 - e)
    r2 = 2 / 3
    at2 = exp(log(s) - r2 * h)
    u = x - at2 * expm1(r2 * h) * e - at2 * r2 / r1 * (expm1(r2 * h) / (r2 * h) - 1) * (e1 - e)
    return x - s2 * expm1(h) * e - s2 / r2 * (expm1(h) / h - 1) * (slope(u, at2) - e)


def ends(sigmas):
    low = min(s for s in sigmas if s > 0)
    return sigmas[0], low if low < sigmas[0] else LOW


def lifted(s, s2, low, eta):
    down = max(ancestral(s, s2, eta)[0], low) if eta else s2
    return down, sqrt(max(0, s2 ** 2 - down ** 2))


def dpm_fast(x, sigmas, noise, eta=1, s_noise=1, **_):
    high, low = ends(sigmas)
    n = len(sigmas) - 1
    orders = [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]
    levels = np.exp(np.linspace(log(high), log(low), len(orders) + 1))
    for order, s, s2 in zip(orders, levels[:-1], levels[1:]):
        down, up = lifted(s, s2, low, eta)
        x = dpm_step(order, x, s, down)
        if up > 0:
            x = x + up * s_noise * noise()
    return x


def dpm_adaptive(x, sigmas, noise, eta=1, s_noise=1, **_):
    s, low = ends(sigmas)
    h, before = 0.05, x
    while -log(s) < -log(low) - 1e-5:
        s2 = max(low, exp(log(s) - h))
        down, up = lifted(s, s2, low, eta)
        second, third = dpm_step(2, x, s, down, 1 / 3), dpm_step(3, x, s, down)
        size = np.maximum(0.0078, 0.05 * np.maximum(abs(second), abs(before)))
        error = np.mean(((second - third) / size) ** 2) ** 0.5
        factor = 1 + np.arctan((1 / (error + 1e-8)) ** (1 / (1.5 if eta else 3)) - 1)
        h *= factor
        if factor >= 0.81:
            before, x, s = second, third + (up * s_noise * noise() if up > 0 else 0), s2
    return x


def dpmpp_2s_a(x, sigmas, noise, eta=1, **_):
    for _, (s, s2) in pairs(sigmas):
        down, up = ancestral(s, s2, eta)
        if down == 0:
            x = denoise(x, s)
            continue
        t, t2 = -log(s), -log(down)
        h = t2 - t
        x2 = exp(-(t + h / 2)) / s * x - expm1(-h / 2) * denoise(x, s)
        x = down / s * x - expm1(-h) * denoise(x2, exp(-(t + h / 2))) + noise() * up
    return x


def dpmpp_2m(x, sigmas, noise, **_):
    old = None
    for i, (s, s2) in pairs(sigmas):
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


def tree_of(sigmas):
    return Tree(min(s for s in sigmas if s > 0), max(sigmas))


def dpmpp_sde(x, sigmas, noise, eta=1, r=0.5, **_):
    tree = tree_of(sigmas)
    for _, (s, s2) in pairs(sigmas):
        den = denoise(x, s)
        if s2 == 0:
            x = den
            continue
        t, t2 = -log(s), -log(s2)
        middle = exp(-(t + r * (t2 - t)))
        down, up = ancestral(s, middle, eta)
        x2 = down / s * x - expm1(t + log(down)) * den + tree(s, middle) * up
        den2 = denoise(x2, middle)
        down, up = ancestral(s, s2, eta)
        target = (1 - 1 / (2 * r)) * den + 1 / (2 * r) * den2
        x = down / s * x - expm1(t + log(down)) * target + tree(s, s2) * up
    return x


def dpmpp_2m_sde(x, sigmas, noise, eta=1, heun=False, **_):
    tree, old, h_last = tree_of(sigmas), None, None
    for _, (s, s2) in pairs(sigmas):
        den = denoise(x, s)
        if s2 == 0:
            x = den
            continue
        h = log(s) - log(s2)
        k = -h - eta * h
        x = s2 / s * exp(-eta * h) * x - expm1(k) * den
        if old is not None:
            r = h_last / h
            x = x + ((-expm1(k) / k + 1) if heun else -0.5 * expm1(k)) / r * (den - old)
        x = x + tree(s, s2) * s2 * sqrt(-expm1(-2 * eta * h))
        old, h_last = den, h
    return x


def dpmpp_2m_sde_heun(x, sigmas, noise, **options):
    return dpmpp_2m_sde(x, sigmas, noise, heun=True, **options)


def dpmpp_3m_sde(x, sigmas, noise, eta=1, **_):
    tree, old = tree_of(sigmas), []
    for _, (s, s2) in pairs(sigmas):
        den = denoise(x, s)
        if s2 == 0:
            x = den
            continue
        h = log(s) - log(s2)
        far = h * (eta + 1)
        x = exp(-far) * x - expm1(-far) * den
        phi2 = expm1(-far) / far + 1
        phi3 = phi2 / far - 0.5
        if len(old) > 1:
            (den1, h1), (den2, h2) = old[-1], old[-2]
            r0, r1 = h1 / h, h2 / h
            a, b = (den - den1) / r0, (den1 - den2) / r1
            x = x + phi2 * (a + (a - b) * r0 / (r0 + r1)) - phi3 * (a - b) / (r0 + r1)
        elif old:
            den1, h1 = old[-1]
            x = x + phi2 * (den - den1) / (h1 / h)
        x = x + tree(s, s2) * s2 * sqrt(-expm1(-2 * h * eta))
        old.append((den, h))
    return x


def lagrange_sums(nodes, points):
    for j, node in enumerate(nodes):
        poly = np.ones_like(points)
        for k, other in enumerate(nodes):
            if k != j:
                poly = poly * (points - other) / (node - other)
        yield poly


def lms(x, sigmas, noise, **_):
    ds = []
    for i, (s, s2) in pairs(sigmas):
        ds = [slope(x, s)] + ds[:3]
        nodes = [sigmas[i - k] for k in range(len(ds))]
        for d, weights in zip(list(ds), lagrange_sums(nodes, np.linspace(s, s2, 20001))):
            x = x + d * np.trapezoid(weights, dx=(s2 - s) / 20000)
    return x


def deis(x, sigmas, noise, **_):
    """The time t of the process with sigma(t)^2 + 1 = exp(beta_d t^2 / 2 + beta_min t)."""
    beta_d = 2 * (log(0.002 ** 2 + 1) / 1e-3 - log(80 ** 2 + 1)) / (1e-3 - 1)
    beta_min = log(80 ** 2 + 1) - beta_d / 2

    def time(s):
        return ((beta_min ** 2 + 2 * beta_d * log(s ** 2 + 1)) ** 0.5 - beta_min) / beta_d
    ds = []
    for i, (s, s2) in pairs(sigmas):
        ds = [slope(x, s)] + ds[:2]
        if s2 == 0 or i == 0:
            x = x + ds[0] * (s2 - s)
            continue
        t = np.linspace(time(s), time(s2), 20001)
        sigma = np.sqrt(np.expm1(beta_d * t ** 2 / 2 + beta_min * t))
        nodes = [time(sigmas[i - k]) for k in range(len(ds))]
        for d, weights in zip(list(ds), lagrange_sums(nodes, t)):
            x = x + d * np.trapezoid(weights, sigma)
    return x


ADAMS = [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]


def ipndm(x, sigmas, noise, **_):
    ds = []
    for _, (s, s2) in pairs(sigmas):
        ds = [slope(x, s)] + ds[:3]
        x = denoise(x, s) if s2 == 0 else x + (s2 - s) * sum(w * d for w, d in zip(ADAMS[len(ds) - 1], ds))
    return x


def plms(x, sigmas, noise, **_):
    ds = []
    for _, (s, s2) in pairs(sigmas):
        ds = [slope(x, s)] + ds[:3]
        mean = sum(w * d for w, d in zip(ADAMS[len(ds) - 1], ds))
        if len(ds) == 1 and s2 > 0:
            mean = (ds[0] + slope(x + ds[0] * (s2 - s), s2)) / 2
        x = x + (s2 - s) * mean
    return x


def uni_pc(x, sigmas, noise, bh2=False, **_):
    sigmas = np.where(sigmas == 0, 0.001, sigmas)
    steps = len(sigmas) - 1
    order = max(1, min(3, steps - 1))
    dens = [denoise(x, sigmas[0])]
    for to in range(1, steps + 1):
        p = min(order, steps + 1 - to, to)
        h = log(sigmas[to - 1]) - log(sigmas[to])
        hh = -h
        big = expm1(hh) if bh2 else hh
        rks = [log(sigmas[to - 1] / sigmas[to - 1 - i]) / h for i in range(1, p)]
        d1s = [(dens[-1 - i] - dens[-1]) / rk for i, rk in enumerate(rks, 1)]
        rks = np.array(rks + [1.0])
        b, phi, fact = [], expm1(hh) / hh - 1, 1
        for i in range(1, p + 1):
            b.append(phi * fact / big)
            fact *= i + 1
            phi = phi / hh - 1 / fact
        matrix = np.stack([rks ** i for i in range(p)])
        base = sigmas[to] / sigmas[to - 1] * x - expm1(hh) * dens[-1]
        rhos = [] if p == 1 else [0.5] if p == 2 else np.linalg.solve(matrix[:-1, :-1], b[:-1])
        x = base - big * sum((r * d for r, d in zip(rhos, d1s)), np.zeros(COUNT))
        if to < steps:
            den = denoise(x, sigmas[to])
            rhos = [0.5] if p == 1 else np.linalg.solve(matrix, b)
            x = base - big * (sum((r * d for r, d in zip(rhos, d1s)), np.zeros(COUNT)) + rhos[-1] * (den - dens[-1]))
            dens.append(den)
    return x


def uni_pc_bh2(x, sigmas, noise, **_):
    return uni_pc(x, sigmas, noise, bh2=True)


def lcm(x, sigmas, noise, **_):
    for _, (s, s2) in pairs(sigmas):
        x = denoise(x, s)
        if s2 > 0:
            x = x + s2 * noise()
    return x


def tcd(x, sigmas, noise, eta=0.3, **_):
    for _, (s, s2) in pairs(sigmas):
        den = denoise(x, s)
        if s2 == 0:
            x = den
            continue
        alpha = 1 / (1 + sigma_at(np.floor((1 - eta) * time_at(s2) + 1e-9)) ** 2)
        z = sqrt(alpha) * den + sqrt(1 - alpha) * (x - den) / s
        x = z / sqrt(alpha) + noise() * sqrt(s2 ** 2 + 1 - 1 / alpha)
    return x


def restart(x, sigmas, noise, **_):
    n = len(sigmas) - 1
    legs = list(zip(sigmas[:-1], sigmas[1:]))
    if n >= 20:
        again, times = (n // 4, 2) if n >= 36 else (9, 1)
        first = np.append(karras_levels(n - again * times, sigmas[-2], sigmas[0]), 0)
        low, high = int(np.argmin(abs(first - 0.1))), int(np.argmin(abs(first - 2)))
        part = karras_levels(again + 1, first[low], first[high])
        legs = list(zip(first[:low], first[1:low + 1])) + times * list(zip(part[:-1], part[1:])) + \
            list(zip(first[low:-1], first[low + 1:]))
    last = None
    for s, s2 in legs:
        if last is not None and last < s:
            x = x + noise() * (s ** 2 - last ** 2) ** 0.5
        d = slope(x, s)
        there = x + d * (s2 - s)
        x = there if s2 == 0 else x + (d + slope(there, s2)) / 2 * (s2 - s)
        last = s2
    return x


def er_sde(x, sigmas, noise, **_):
    def scale(v):
        return v * (np.exp(v ** 0.3) + 10)
    old, old_d = None, None
    for i, (s, s2) in pairs(sigmas):
        den = denoise(x, s)
        if s2 == 0:
            x = den
            continue
        r = scale(s2) / scale(s)
        x = r * x + (1 - r) * den
        if i > 0:
            dt = s2 - s
            piece = -dt / 200
            at = s2 + np.arange(200) * piece
            d = (den - old) / (s - sigmas[i - 1])
            x = x + (dt + np.sum(1 / scale(at)) * piece * scale(s2)) * d
            if i > 1:
                u = (d - old_d) / ((s - sigmas[i - 2]) / 2)
                x = x + (dt ** 2 / 2 + np.sum((at - s) / scale(at)) * piece * scale(s2)) * u
            old_d = d
        x = x + noise() * sqrt(max(0, s2 ** 2 - s ** 2 * r ** 2))
        old = den
    return x


SAMPLERS = (euler, euler_a, heun, dpm2, dpm2_a, dpm_fast, dpm_adaptive, dpmpp_2s_a, dpmpp_2m, dpmpp_sde, dpmpp_2m_sde, dpmpp_2m_sde_heun,
            dpmpp_3m_sde, lms, ddim, ddim_cfg_pp, plms, uni_pc, uni_pc_bh2, lcm, tcd, ipndm, deis, restart, er_sde)
SCHEDULERS = ("normal", "simple", "karras", "exponential", "polyexponential", "sgm_uniform", "ddim_uniform", "beta",
              "kl_optimal", "ays", "turbo", "linear_quadratic")
OPTIONS = ((euler, {"s_churn": 5, "s_tmin": 0.5, "s_tmax": 10, "s_noise": 1.003}), (heun, {"s_churn": 40}),
           (dpm2, {"s_churn": 3}), (euler_a, {"eta": 0.5, "s_noise": 1.1}), (euler_a, {"eta": 0}), (ddim, {"eta": 1}),
           (dpm2_a, {"eta": 0.7}), (dpmpp_2s_a, {"eta": 0.6}), (dpmpp_sde, {"r": 0.3, "eta": 0.8}),
           (dpmpp_2m_sde, {"eta": 0.5}), (dpmpp_3m_sde, {"eta": 0.4}), (tcd, {"eta": 0.8}),
           (dpm_fast, {"eta": 0}), (dpm_fast, {"eta": 0.4, "s_noise": 1.1}), (dpm_adaptive, {"eta": 0}),
           (dpm_adaptive, {"eta": 0.4}))


def rounded(values):
    return [float(f"{v:.12g}") for v in values]


def run(sampler, name, steps, **options):
    sigmas = schedule(name, steps)
    start = np.cos(3 * np.arange(COUNT)) * sigmas[0]
    start = start.astype(np.float32).astype(np.float64)
    return {"scheduler": name, "sampler": sampler.__name__, "steps": steps, "options": options,
            "start": rounded(start), "end": rounded(sampler(start, sigmas, Noise(), **options))}


def main():
    out = {"table": {str(i): TABLE[i] for i in (0, 1, 250, 500, 750, 998, 999)}, "schedules": [], "runs": [], "path": []}
    for name in SCHEDULERS:
        for dialect in ("a1111", "comfy"):
            for steps in (1, 2, 4, 11, 30):
                out["schedules"].append({"scheduler": name, "dialect": dialect, "steps": steps,
                                         "sigmas": rounded(schedule(name, steps, dialect))})
        out["schedules"].append({"scheduler": name, "dialect": "a1111", "steps": 10, "discards": True,
                                 "sigmas": rounded(schedule(name, 10, "a1111", True))} if name != "kl_optimal" else
                                {"scheduler": name, "dialect": "comfy", "steps": 10, "discards": True,
                                 "sigmas": rounded(schedule(name, 10, "comfy", True))})
    for steps in (2, 7, 20):
        out["schedules"].append({"scheduler": "ddim_uniform", "dialect": "a1111", "steps": steps, "timesteps": True,
                                 "sigmas": rounded(schedule("timesteps", steps))})
    for name, steps, rho in (("karras", 12, 3), ("karras", 5, 0.5), ("polyexponential", 12, 2.5), ("exponential", 4, 3)):
        out["schedules"].append({"scheduler": name, "dialect": "a1111", "steps": steps, "rho": rho,
                                 "sigmas": rounded(schedule(name, steps, rho=rho))})
    for sampler in SAMPLERS:
        for name, steps in (("normal", 1), ("normal", 2), ("karras", 5), ("normal", 20), ("karras", 40),
                            ("kl_optimal", 7)):
            out["runs"].append(run(sampler, name, steps))
    for sampler, options in OPTIONS:
        out["runs"].append(run(sampler, "karras", 9, **options))
    tree = Tree(LOW, HIGH)
    for s, s2 in ((HIGH, LOW), (HIGH, 7.5), (7.5, 1.25), (3.000001, 3), (1.25, LOW), (0.5, 0.25)):
        out["path"].append({"from": s, "to": s2, "noise": rounded(tree(s, s2))})
    print(json.dumps(out).replace('{"scheduler"', '\n{"scheduler"').replace('{"from"', '\n{"from"'))


if __name__ == "__main__":
    main()
