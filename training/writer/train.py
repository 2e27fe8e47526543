"""Trains the writer: python3 train.py [--steps N] [--out DIR] [--threads N]

The first run learns the tokenizer from sampled conversations (out/tokenizer.json); then conversations are
generated as they are needed, in blocks that depend on the seed and the block's number only, so that a run
resumed from a checkpoint (out/checkpoint.pt, every few minutes) sees what an unbroken one would have seen.
Only the assistant's tokens are learnt.  Batches hold conversations of similar length.
"""

import argparse
import math
import os
import random
import time

import torch
import torch.nn.functional as F

import words
from chat import sample
from model import CONFIG, Writer
from tokenizer import SPACE, Tokenizer, train as train_tokenizer

SEED = 20260
BLOCK = 1536
BATCH_TOKENS = 4608
PEAK_RATE, WARM_STEPS = 2.5e-3, 150


def get_tokenizer(path):
    if not os.path.exists(path):
        rng = random.Random(SEED)
        texts = [t for _ in range(15000) for _, t in sample(rng)]
        Tokenizer(train_tokenizer(texts, CONFIG["vocab"])).save(path)
    return Tokenizer.load(path)


def offer_pieces(tokenizer):
    """Lets words.invent() build words from the vocabulary's own pieces."""
    plain = [p for p in tokenizer.pieces if p.strip(SPACE).isalpha() and p.isprintable()]
    words.PIECES["first"] = [p[1:] for p in plain if p[0] == SPACE and p[1:].islower()]
    words.PIECES["later"] = [p for p in plain if p[0] != SPACE and p.islower()]


def padded(length):
    """Few different sizes: oneDNN compiles its products for every new one."""
    step = 16 if length <= 256 else 64
    return -(-length // step) * step


def block_batches(tokenizer, number):
    """The batches of one block: (tokens [B, T], learnt positions in the flat batch, their targets)."""
    rng = random.Random(SEED * 1000003 + number)
    rows = [tokenizer.chat(sample(rng)) for _ in range(BLOCK)]
    rows = sorted((r for r in rows if len(r[0]) <= CONFIG["context"]), key=lambda r: (len(r[0]), r[0]))
    batches, start = [], 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end + 1 - start) * padded(len(rows[end][0])) <= BATCH_TOKENS:
            end += 1
        batches.append(rows[start:end])
        start = end
    rng.shuffle(batches)
    for rows in batches:
        length = padded(max(len(r[0]) for r in rows))
        x = torch.zeros(max(1, BATCH_TOKENS // length), length, dtype=torch.long)
        index, target = [], []
        for i, (ids, learn) in enumerate(rows):
            x[i, : len(ids) - 1] = torch.tensor(ids[:-1])
            for j in range(1, len(ids)):
                if learn[j]:
                    index.append(i * length + j - 1)
                    target.append(ids[j])
        spare = -len(index) % 512
        yield x, torch.tensor(index + [0] * spare), torch.tensor(target + [-100] * spare)


def rate(step, steps, start=0, peak=PEAK_RATE):
    """Warm-up and cosine; with start, a second and shorter round that falls straight to nothing."""
    if start:
        return peak * max(0.02, (steps - step) / (steps - start)) * min(1.0, (step - start + 1) / 8)
    if step < WARM_STEPS:
        return PEAK_RATE * (step + 1) / WARM_STEPS
    done = (step - WARM_STEPS) / max(1, steps - WARM_STEPS)
    return PEAK_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def save(path, **state):
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser()
    p.add_argument("--steps", type=int, default=2600)
    p.add_argument("--out", default=os.path.join(here, "out"))
    p.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    p.add_argument("--start", type=int, default=0, help="first step of a second round (with --peak)")
    p.add_argument("--peak", type=float, default=PEAK_RATE)
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(SEED)
    tokenizer = get_tokenizer(os.path.join(a.out, "tokenizer.json"))
    offer_pieces(tokenizer)
    model = Writer()
    plain = [q for q in model.parameters() if q.dim() < 2]
    matrices = [q for q in model.parameters() if q.dim() == 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=0.0, betas=(0.9, 0.98))
    path, step, block, skip, spent = os.path.join(a.out, "checkpoint.pt"), 0, 0, 0, 0.0
    if os.path.exists(path):
        s = torch.load(path, weights_only=False)
        model.load_state_dict(s["model"])
        optimizer.load_state_dict(s["optimizer"])
        step, block, skip, spent = s["step"], s["block"], s["skip"], s["spent"]
        print(f"resumed at step {step}", flush=True)
    began = saved = shown = time.time()
    losses, tokens = [], 0
    while step < a.steps:
        for number, (x, index, target) in enumerate(block_batches(tokenizer, block)):
            if number < skip:
                continue
            for group in optimizer.param_groups:
                group["lr"] = rate(step, a.steps, a.start, a.peak)
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model(x).reshape(-1, CONFIG["width"])
                logits = model.logits(hidden[index])
            loss = F.cross_entropy(logits.float(), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            step, skip = step + 1, number + 1
            losses.append(loss.item())
            tokens += x.numel()
            now = time.time()
            if step % 50 == 0:
                print(f"step {step} loss {sum(losses) / len(losses):.4f} {tokens / (now - shown):.0f} tokens/s "
                      f"{(spent + now - began) / 60:.1f} min", flush=True)
                losses, tokens, shown = [], 0, now
            if now - saved > 150 or step == a.steps:
                save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step, block=block,
                     skip=skip, spent=spent + now - began)
                saved = time.time()
            if step == a.steps:
                break
        block, skip = block + 1, 0
    print(f"trained: {step} steps", flush=True)


if __name__ == "__main__":
    main()
