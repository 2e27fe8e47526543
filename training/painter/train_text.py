"""Trains the text encoder alone, on captions: out/text.pt.

    train_text.py [STEPS]      about three minutes on one core

From the end token, and from any of the end tokens that pad the row to 77, a linear layer must tell every
attribute of the picture: style, scene, time, shape, color, background, size, place, count. Cross-attention reads
the same vectors through linear layers, so what a linear layer can tell, the U-Net gets for nothing. Trained
together with the U-Net from scratch the text is ignored for a very long time; this way it is ready before the
first picture. It is frozen afterwards.

CLIP's table has 49,408 rows; captions use a few hundred of them. Training holds only those and one row for all
other tokens, which is shown at random places so that unknown words are looked past. export.py spreads them.
"""

import json
import pathlib
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import clip_tokens
import nets
import world

OUT = pathlib.Path(__file__).parent / "out"
WIDTH, HEADS, LAYERS = 64, 2, 4
QUESTIONS = {
    "style": world.STYLES,
    "scene": [None] + world.SCENES,
    "time": [None] + world.TIMES,
    "shape": [None] + world.SHAPES,
    "color": [None] + list(world.COLORS),
    "background": [None] + list(world.COLORS),
    "size": [None] + world.SIZES,
    "place": [None] + world.PLACES,
    "count": [None, 1, 2, 3],
}


def answers(a):
    return [options.index(a.get(key)) for key, options in QUESTIONS.items()]


class Words:
    """Caption -> row of 77 numbers in the small table; the last number of the table is 'any other token'."""

    def __init__(self):
        self.tokenize = clip_tokens.Tokenizer()
        rng, used = random.Random(5), {clip_tokens.START, clip_tokens.END}
        for _ in range(60000):
            used.update(self.tokenize(world.caption(world.sample(rng), rng)))
        used.update(self.tokenize("0123456789 , . ! ? : ; - ' \" the a an of and with in on at it is ( )"))
        self.ids = sorted(used)
        self.small = {i: n for n, i in enumerate(self.ids)}
        self.other = len(self.ids)

    def row(self, text, rng=None):
        """rng: strew unknown words in, as people do."""
        ids = [self.small.get(i, self.other) for i in self.tokenize(text)]
        if rng and rng.random() < 0.35:
            for _ in range(rng.choice((1, 1, 2, 3, 8))):
                ids.insert(rng.randint(0, len(ids)), self.other)
        start, end = self.small[clip_tokens.START], self.small[clip_tokens.END]
        row = [start] + ids[: clip_tokens.LENGTH - 2] + [end]
        return row + [end] * (clip_tokens.LENGTH - len(row))


def load_text():
    """(encoder with its small table, Words)"""
    words = Words()
    encoder = nets.TextEncoder(words.other + 1, WIDTH, HEADS, LAYERS)
    saved = torch.load(OUT / "text.pt")
    assert saved["ids"] == words.ids, "world.json changed since the text encoder was trained"
    encoder.load_state_dict(saved["encoder"])
    return encoder.eval(), words


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    torch.manual_seed(3)
    rng, words, batch = random.Random(4), Words(), 96
    encoder = nets.TextEncoder(words.other + 1, WIDTH, HEADS, LAYERS)
    sizes = [len(o) for o in QUESTIONS.values()]
    probe = nn.Linear(WIDTH, sum(sizes))
    parameters = [*encoder.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    end, start = words.small[clip_tokens.END], time.time()
    print(f"{words.other} tokens in use, {nets.parameters_of(encoder)} parameters")
    right = np.zeros(len(sizes))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * max(0.02, 1 - step / steps)
        pictures = [world.sample(rng, scene_share=0.25, flat_share=0.5) for _ in range(batch)]
        rows = torch.tensor([words.row(world.caption(a, rng), rng) for a in pictures])
        wanted = torch.tensor([answers(a) for a in pictures])
        with torch.autocast("cpu", torch.bfloat16):
            out = encoder(rows)
        first_end = (rows == end).int().argmax(1)
        padding = first_end + (torch.rand(batch) * (clip_tokens.LENGTH - first_end)).long()
        loss = 0
        for where in (first_end, padding):
            logits = probe(out.float()[torch.arange(batch), where]).split(sizes, 1)
            loss = loss + sum(F.cross_entropy(l, wanted[:, k], label_smoothing=0.02) for k, l in enumerate(logits))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        right = 0.98 * right + 0.02 * np.array([(l.argmax(1) == wanted[:, k]).float().mean().item() for k, l in enumerate(logits)])
        if (step + 1) % 100 == 0:
            shown = right / (1 - 0.98 ** (step + 1))
            print(f"step {step + 1}/{steps} {time.time() - start:.0f} s loss {loss.item():.3f} " +
                  " ".join(f"{k} {v:.3f}" for k, v in zip(QUESTIONS, shown)), flush=True)
    torch.save(dict(encoder=encoder.state_dict(), ids=words.ids), OUT / "text.pt")


if __name__ == "__main__":
    main()
