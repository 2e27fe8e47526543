"""Trains the U-Net on the frozen latents and the frozen text: out/unet.pt.

    train_unet.py [STEPS]        default 9,000 steps of 32 pictures; resumes from out/unet.pt
    train_unet.py STEPS COOL     the last COOL steps let the learning rate fall to nothing (default 2,500)
    train_unet.py text           only what the text encoder says of every caption -> out/contexts.pt

v-prediction with the plain squared error: at the noisiest steps, where place, shape and colour are decided, v is
the picture itself, so a small error there is a small error of the picture (with eps-prediction it is multiplied by
sigma, up to 14.6, and backgrounds drift). The learning rate stays level and falls at the end, so that a run can be
made longer by resuming before its end. Every weight is averaged over about a thousand steps; the average is what
is used. One caption in ten is empty: guidance needs the unconditional answer.

The mix starts with flat single shapes (`EASY`), because binding a colour and a shape to the words is the hard part
and styles and scenes come by themselves; after `MIX_AFTER` steps all pictures are drawn alike.
"""

import json
import math
import pathlib
import random
import sys
import time

import numpy as np
import torch

import diffusion
import nets
import world
from train_text import WIDTH, load_text

OUT = pathlib.Path(__file__).parent / "out"
SHAPE = dict(width=64, mult=(1, 2, 2), attention_at=(0, 1, 0), context=WIDTH, heads=4, blocks=1)
BATCH, RATE, WARMUP, EMPTY = 32, 1.2e-3, 200, 0.1
CAPTIONS = 2  # of every picture
UNTOLD = 0.06  # of them leave the colour to the painter
MIX_AFTER, EASY = 3000, 0.6
KEEP = 0.999


def make_contexts(attributes):
    """Text of CAPTIONS captions of every picture, [N, CAPTIONS, 77, WIDTH] bfloat16, and of the empty caption."""
    (encoder, words), rng, start = load_text(), random.Random(8), time.time()
    out = torch.empty(len(attributes), CAPTIONS, 77, WIDTH, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(attributes), 500):
            part = attributes[i : i + 500]
            for k in range(CAPTIONS):
                out[i : i + 500, k] = encoder(torch.tensor([words.row(world.caption(a, rng, UNTOLD), rng) for a in part]))
        empty = encoder(torch.tensor([words.row("")])).bfloat16()
    torch.save(dict(text=out, empty=empty), OUT / "contexts.part")
    (OUT / "contexts.part").rename(OUT / "contexts.pt")
    print(f"text of {len(attributes)} pictures in {time.time() - start:.0f} s", flush=True)


class Batches:
    """Picture numbers; the easy ones more often at the start."""

    def __init__(self, attributes, seed):
        self.rng = np.random.default_rng(seed)
        self.count = len(attributes)
        self.easy = np.array([i for i, a in enumerate(attributes)
                              if a["kind"] == "shapes" and a["style"] == "flat" and a["count"] == 1])

    def next(self, step):
        pick = self.rng.integers(0, self.count, BATCH)
        if step < MIX_AFTER:
            easy = self.easy[self.rng.integers(0, len(self.easy), BATCH)]
            pick = np.where(self.rng.random(BATCH) < EASY, easy, pick)
        return torch.from_numpy(pick)


def rate_at(step, steps, cool):
    left = (steps - step) / cool
    return RATE * min(1, (step + 1) / WARMUP) * min(1, max(0.01, left))


def main():
    latents = torch.load(OUT / "latents.pt")
    attributes = json.loads((OUT / "attributes.json").read_text())[: len(latents)]
    if sys.argv[1:] == ["text"] or not (OUT / "contexts.pt").exists():
        make_contexts(attributes)
    if sys.argv[1:] == ["text"]:
        return
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    cool = int(sys.argv[2]) if len(sys.argv) > 2 else 2500
    saved = torch.load(OUT / "contexts.pt")
    text, empty = saved["text"], saved["empty"]

    torch.manual_seed(11)
    unet = nets.UNet(**SHAPE)
    average = nets.UNet(**SHAPE)
    average.load_state_dict(unet.state_dict())
    optimizer = torch.optim.AdamW(unet.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    first = 0
    if (OUT / "unet.pt").exists():
        saved = torch.load(OUT / "unet.pt")
        unet.load_state_dict(saved["unet"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    print(f"{nets.parameters_of(unet) / 1e6:.2f} M parameters, from step {first} to {steps}", flush=True)
    torch.manual_seed(100 + first)
    batches, start, losses = Batches(attributes, 200 + first), time.time(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, cool)
        pick = batches.next(step)
        context = text[pick, torch.randint(0, CAPTIONS, (BATCH,))]
        context[torch.rand(BATCH) < EMPTY] = empty
        t = torch.randint(0, 1000, (BATCH,))
        z = latents[pick].float()
        x, wanted = diffusion.noised(z, torch.randn_like(z), t)
        with torch.autocast("cpu", torch.bfloat16):
            v = unet(x, t, context)
        loss = (v.float() - wanted).pow(2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            share = 1 - min(KEEP, (1 + step) / (20 + step))
            torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), share)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            speed = BATCH * (step + 1 - first) / (time.time() - start)
            print(f"step {step + 1}/{steps} {time.time() - start:.0f} s loss {np.mean(losses[-100:]):.4f} "
                  f"rate {optimizer.param_groups[0]['lr']:.5f} {speed:.0f} pictures/s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            part = OUT / "unet.part"
            torch.save(dict(unet=unet.state_dict(), average=average.state_dict(), optimizer=optimizer.state_dict(),
                            step=step + 1), part)
            part.rename(OUT / "unet.pt")


if __name__ == "__main__":
    main()
