"""Scores pictures of flat shapes against what was asked, with geometry alone: no network judges another.

    score.py prompts                 writes heldout.json: prompts of held-out (color, shape, background) triples
    score.py truth                   the drawings themselves: what the scorer is worth (about 100 %)
    score.py latent                  the drawings through the autoencoder: the ceiling of the card
    score.py torch  [options]        sampled by PyTorch from out/ (while training)
    score.py file   FILE [options]   sampled by PyTorch from a finished safetensors file
    score.py server URL  [options]   drawn by a running Mysti, over HTTP: the card's numbers
    score.py worker URL  [options]   drawn by a mysti_sd_worker alone (its token in MYSTI_WORKER_TOKEN, model loaded)
  options: --count N  --steps 20  --scale 5  --save SHEET.png

The background is the median of the border. What is far from it is the thing; its colour is the median of the
inner pixels, named by the nearest of the eight. The mask (nearer to the thing's colour than to the background's)
falls into connected pieces; count is the number of pieces at least a third as large as the largest, which is also
how specks are forgiven. Each piece is laid over every shape of the same area and centre, tilted by up to 15
degrees; the shape is the one with the greatest overlap (intersection over union), if that is at least 0.72. The
picture's shape is right only if every counted piece has it. Place and size are measured and reported too.
"""

import argparse
import base64
import collections
import functools
import io
import json
import math
import os
import pathlib
import random
import urllib.request

import numpy as np
from PIL import Image, ImageDraw

import world

HERE = pathlib.Path(__file__).parent
OUT = HERE / "out"
GRID, OVERLAP = 48, 0.72


# ------------------------------------------------------------------------------------- measuring


def nearest_color(rgb):
    return min(world.COLORS, key=lambda name: sum((a - b) ** 2 for a, b in zip(world.COLORS[name], rgb)))


def pieces(mask):
    """Connected pieces (4 neighbours) of a boolean [H, W], as lists of (y, x), largest first."""
    todo, found = {tuple(p) for p in np.argwhere(mask)}, []
    while todo:
        queue, piece = collections.deque([todo.pop()]), []
        while queue:
            y, x = queue.popleft()
            piece.append((y, x))
            for neighbour in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if neighbour in todo:
                    todo.remove(neighbour)
                    queue.append(neighbour)
        found.append(piece)
    return sorted(found, key=len, reverse=True)


def on_grid(points, area, center):
    """A polygon as boolean [GRID, GRID], scaled so that `area` becomes a quarter of the grid, centre in the middle."""
    scale = math.sqrt(GRID * GRID * 0.25 / area)
    image = Image.new("1", (GRID, GRID))
    moved = [((x - center[0]) * scale + GRID / 2, (y - center[1]) * scale + GRID / 2) for x, y in points]
    ImageDraw.Draw(image).polygon(moved, fill=1)
    return np.asarray(image)


def centroid(points):
    """Area and centre of a polygon (the shoelace formula)."""
    p, q = np.array(points), np.roll(points, -1, 0)
    cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    area = cross.sum() / 2
    return abs(area), ((p + q) * cross[:, None]).sum(0) / (6 * area)


@functools.cache
def templates():
    out = []
    for shape in world.SHAPES:
        for degrees in range(-15, 16, 5) if shape != "circle" else (0,):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            points = [(c * x - s * y, s * x + c * y) for x, y in world.outline_of(shape, 100)]
            area, center = centroid(points)
            out.append((shape, on_grid(points, area, center)))
    return out


def shape_of(piece):
    """(name or None, overlap) of a piece."""
    yx = np.array(piece, np.float64)
    cy, cx = yx.mean(0)
    scale = math.sqrt(GRID * GRID * 0.25 / len(piece))
    member = set(piece)
    grid = np.zeros((GRID, GRID), bool)
    for gy in range(GRID):
        for gx in range(GRID):
            y, x = (gy + 0.5 - GRID / 2) / scale + cy, (gx + 0.5 - GRID / 2) / scale + cx
            grid[gy, gx] = (round(y), round(x)) in member
    best = max(((grid & t).sum() / (grid | t).sum(), name) for name, t in templates())
    return (best[1] if best[0] >= OVERLAP else None), float(best[0])


def size_of(found, shape):
    """The size whose radius fits the pieces' area."""
    area = np.mean([len(q) for q in found])
    radius = math.sqrt(area / centroid(world.outline_of(shape or "circle", 1))[0])
    ranges = world.RADIUS[min(3, len(found))]
    return min(world.SIZES, key=lambda s: abs(radius - sum(ranges[s]) / 2))


def measure(picture):
    """What a [128, 128, 3] uint8 picture of flat shapes shows."""
    p = picture.astype(np.float32)
    border = np.concatenate([p[:3].reshape(-1, 3), p[-3:].reshape(-1, 3), p[:, :3].reshape(-1, 3), p[:, -3:].reshape(-1, 3)])
    ground = np.median(border, 0)
    far = np.sqrt(((p - ground) ** 2).sum(2))
    seen = dict(background=nearest_color(ground), color=None, shape=None, count=0, place=None, size=None, overlap=0.0)
    inner = far > max(60.0, 0.6 * np.quantile(far, 0.995))
    if inner.sum() < 60:
        return seen
    thing = np.median(p[inner], 0)
    mask = np.sqrt(((p - thing) ** 2).sum(2)) < far
    found = [q for q in pieces(mask) if len(q) >= 60]
    if not found:
        return seen
    found = [q for q in found if len(q) >= len(found[0]) / 3]
    shapes = [shape_of(q) for q in found[:4]]
    y, x = np.mean([np.mean(q, 0) for q in found], 0) - 63.5
    names = {"left": (-x, abs(y)), "right": (x, abs(y)), "top": (-y, abs(x)), "bottom": (y, abs(x))}
    place = max(names, key=lambda k: names[k][0])
    seen.update(color=nearest_color(thing), count=len(found), overlap=min(o for _, o in shapes),
                shape=shapes[0][0] if len({s for s, _ in shapes}) == 1 else None,
                place=place if names[place][0] > 8.5 else "center",
                size=size_of(found, shapes[0][0]))
    return seen


# --------------------------------------------------------------------------------------- prompts


def make_prompts(count=240):
    rng, prompts = random.Random(77), []
    for i in range(count):
        a = world.sample(rng, held_out=True)
        prompts.append(dict(prompt=world.caption(a, rng), seed=1000 + i, **a))
    return prompts


def load_prompts(count):
    return json.loads((HERE / "heldout.json").read_text())[:count]


# --------------------------------------------------------------------------------------- painters


def from_truth(prompts, options):
    return [world.render(a, a["seed"]) for a in prompts]


def from_latent(prompts, options):
    import torch
    import nets
    import train_autoencoder as ae

    latent, decoder = ae.load_latent(), nets.Decoder(ae.BASE, ae.MULT)
    decoder.load_state_dict(torch.load(OUT / "decoder.pt"))
    with torch.no_grad():
        y = torch.cat([decoder(latent(ae.as_input(np.stack([p])))) for p in from_truth(prompts, options)])
    return pictures_of(y)


def pictures_of(y):
    return list(((y.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())


def paint(unet, encode, decode, prompts, options):
    """encode: list of texts -> context; decode: latents of unit variance -> pictures."""
    import torch
    import diffusion

    out = []
    for i in range(0, len(prompts), 20):
        part = prompts[i : i + 20]
        noise = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(a["seed"])) for a in part])
        negative = encode([a.get("negative", "") for a in part])
        z = diffusion.sample(unet, encode([a["prompt"] for a in part]), negative, noise, options.steps, options.scale)
        with torch.no_grad():
            out += pictures_of(decode(z))
    return out


def from_torch(prompts, options):
    import torch
    import nets
    import train_autoencoder as ae
    import train_unet
    from train_text import load_text

    unet, decoder = nets.UNet(**train_unet.SHAPE), nets.Decoder(ae.BASE, ae.MULT)
    saved = torch.load(OUT / "unet.pt")
    print("step", saved["step"])
    unet.load_state_dict(saved["average"])
    decoder.load_state_dict(torch.load(OUT / "decoder.pt"))
    encoder, words = load_text()
    with torch.no_grad():
        encode = lambda texts: encoder(torch.tensor([words.row(t) for t in texts]))
        return paint(unet, encode, decoder, prompts, options)


def from_file(prompts, options):
    import torch
    import export

    unet, encoder, decoder, tokenizer = export.load(options.source)
    with torch.no_grad():
        encode = lambda texts: encoder(torch.tensor([tokenizer.row(t) for t in texts]))
        return paint(unet, encode, lambda z: decoder(z / export.SCALE), prompts, options)


def from_server(prompts, options):
    out = []
    for a in prompts:
        body = dict(prompt=a["prompt"], negative_prompt=a.get("negative", ""), size="128x128", n=1, seed=a["seed"],
                    steps=options.steps, cfg_scale=options.scale, response_format="b64_json")
        request = urllib.request.Request(options.source.rstrip("/") + "/v1/images/generations",
                                         json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            png = base64.b64decode(json.load(answer)["data"][0]["b64_json"])
        out.append(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")))
    return out


def from_worker(prompts, options):
    """The worker answers with lines of JSON; the one that announces an image is followed by the PNG's bytes."""
    out = []
    for a in prompts:
        job = dict(prompt=a["prompt"], negative_prompt=a.get("negative", ""), width=128, height=128, seed=a["seed"],
                   steps=options.steps, cfg_scale=options.scale)
        request = urllib.request.Request(options.source.rstrip("/") + "/internal/generate", json.dumps(job).encode(),
                                         {"Authorization": "Bearer " + os.environ["MYSTI_WORKER_TOKEN"]})
        with urllib.request.urlopen(request, timeout=120) as answer:
            for line in answer:
                event = json.loads(line)
                if event["event"] == "error":
                    raise SystemExit(event["error"]["message"])
                if event["event"] == "image":
                    out.append(np.asarray(Image.open(io.BytesIO(answer.read(event["bytes"]))).convert("RGB")))
                    answer.read(1)
    return out


PAINTERS = {"truth": from_truth, "latent": from_latent, "torch": from_torch, "file": from_file, "server": from_server, "worker": from_worker}


def sheet(pictures, path, across=16):
    rows = [np.concatenate(pictures[i : i + across], 1) for i in range(0, len(pictures) // across * across, across)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prompts", *PAINTERS])
    parser.add_argument("source", nargs="?", help="FILE or URL")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=5.0)
    parser.add_argument("--save", help="write the pictures as one sheet")
    parser.add_argument("--misses", action="store_true", help="list what went wrong")
    options = parser.parse_args()
    if options.what == "prompts":
        lines = ",\n".join(json.dumps(p) for p in make_prompts())
        (HERE / "heldout.json").write_text(f"[\n{lines}\n]\n")
        return
    prompts = load_prompts(options.count)
    pictures = PAINTERS[options.what](prompts, options)
    if options.save:
        sheet(pictures, options.save)
    right = collections.Counter()
    for a, picture in zip(prompts, pictures):
        seen = measure(picture)
        for key in ("color", "shape", "count", "background", "place", "size"):
            right[key] += seen[key] == a[key] or (key == "size" and a["count"] == 3)
        right["all three"] += all(seen[k] == a[k] for k in ("color", "shape", "count"))
        if options.misses and any(seen[k] != a[k] for k in ("color", "shape", "count")):
            print(a["prompt"], "->", {k: seen[k] for k in ("color", "shape", "count", "overlap")})
    print(f"{len(prompts)} pictures: " + "  ".join(f"{k} {100 * v / len(prompts):.1f} %" for k, v in right.items()))


if __name__ == "__main__":
    main()
