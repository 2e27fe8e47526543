"""The card's contact sheet: what the painter makes of chosen prompts, and what guidance and negative prompts do.

    contact_sheet.py torch OUT.png           from out/ (while training)
    contact_sheet.py file FILE OUT.png       from a finished file, by PyTorch
    contact_sheet.py worker URL OUT.png      drawn by a mysti_sd_worker (see score.py)
    contact_sheet.py effects worker URL      numbers: how guidance and negative prompts change pictures

`effects` asks for a shape without saying its colour, sees which colour came, and asks again with that colour as
the negative prompt: how often does another come? And it scores held-out prompts at several guidance scales.
"""

import argparse

import numpy as np
from PIL import Image

import score
import world

ROWS = [
    ["a red circle on a blue background", "a green triangle", "a purple star on yellow", "a white heart on a red background",
     "an orange square on a black background", "a black star on a green background", "a yellow heart on purple", "a blue circle"],
    ["a small red star on the left", "a small blue circle at the top", "a large yellow circle on black", "a big green heart",
     "a small purple square on the right, orange background", "a tiny black triangle at the bottom", "a huge orange star on blue",
     "a large white triangle on a purple background"],
    ["two red hearts", "two yellow stars on a blue background", "three green circles", "three orange triangles on black",
     "two large black squares on yellow", "three white stars on a red background", "2 small purple circles", "three blue hearts on orange"],
    ["a boat", "a boat at sunset", "a blue boat at night", "a house", "a red house at night", "mountains", "mountains at sunset", "mountains at night"],
    ["a tree", "a tree at night", "the sea at sunset", "the sea at night", "a boat, watercolor", "a house at sunset, watercolor",
     "a red circle, watercolor", "two blue hearts on yellow, watercolor"],
    ["a red heart, neon", "a blue star, neon style", "a boat at night, neon", "three green circles, neon", "a red heart, pixel art",
     "pixel art of two yellow stars on blue", "a house, pixel art", "mountains at night, pixel art"],
    [("a boat at sunset, watercolor", "", s) for s in (1, 1.5, 2, 3, 5, 7.5, 10, 14)],
    [("a circle", "", 3), ("a circle", "red circle", 3), ("a circle", "green circle", 3), ("a heart", "", 3), ("a heart", "blue heart", 3),
     ("mountains", "", 3), ("mountains", "night, a dark sky", 3), ("a boat", "watercolor, neon", 3)],
]


def painter(options):
    return score.PAINTERS[options.what]


def paint_each(options, asked):
    """Pictures of (prompt, negative, scale, seed), grouped by scale because a batch has one."""
    out = [None] * len(asked)
    for scale in {a[2] for a in asked}:
        options.scale = scale
        where = [i for i, a in enumerate(asked) if a[2] == scale]
        prompts = [dict(prompt=asked[i][0], negative=asked[i][1], seed=asked[i][3]) for i in where]
        for i, picture in zip(where, painter(options)(prompts, options)):
            out[i] = picture
    return out


def make_sheet(options, path):
    asked = []
    for row in ROWS:
        for n, item in enumerate(row):
            prompt, negative, scale = item if isinstance(item, tuple) else (item, "", 3)
            asked.append((prompt, negative, scale, 5 if len(set(map(str, row))) < 3 or isinstance(item, tuple) else 40 + n))
    pictures = paint_each(options, asked)
    score.sheet(pictures, path, across=8)
    full = Image.open(path)
    full.quantize(palette=full.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def effects(options):
    shapes = [f"a {shape} on a {background} background" for shape in world.SHAPES for background in ("white", "black", "blue")]
    asked = [(prompt, "", 3, seed) for prompt in shapes for seed in (1, 2)]
    first = [score.measure(p)["color"] for p in paint_each(options, asked)]
    again = [(prompt, f"{color} {prompt.split()[1]}", 3, seed) for (prompt, _, _, seed), color in zip(asked, first) if color]
    second = [score.measure(p)["color"] for p in paint_each(options, again)]
    first = [c for c in first if c]
    moved = sum(a != b for a, b in zip(first, second))
    print(f"negative prompt: the colour that came first was avoided in {moved} of {len(first)}; it came as "
          + ", ".join(f"{c} {first.count(c)}" for c in sorted(set(first))))
    prompts, plain = score.load_prompts(96), None
    for scale in (1, 2, 3, 5, 7.5, 12):
        options.scale = scale
        pictures = painter(options)(prompts, options)
        seen = [score.measure(p) for p in pictures]
        parts = [f"{k} {100 * np.mean([s[k] == a[k] for s, a in zip(seen, prompts)]):.0f} %" for k in ("color", "shape", "count")]
        plain = plain or pictures
        moved = np.mean([np.abs(p.astype(np.float32) - q).mean() for p, q in zip(pictures, plain)])
        print(f"scale {scale}: " + "  ".join(parts) + f"  away from scale 1 by {moved:.1f} of 255")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["effects", *score.PAINTERS])
    parser.add_argument("rest", nargs="+")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    wanted, rest = options.what, options.rest
    if wanted == "effects":
        options.what, rest = rest[0], rest[1:]
    options.source = rest[0] if rest else None
    if wanted == "effects":
        effects(options)
    else:
        make_sheet(options, rest[-1])


if __name__ == "__main__":
    main()
