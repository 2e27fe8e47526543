"""The painter's world: what a picture holds, how it is drawn and what people call it.

A picture is a dict of attributes:
    kind    'shapes' or 'scene'
    style   flat, watercolor, neon, pixel
    shapes: color, shape, count 1..3, size, place, background
    scenes: scene, time, color (boat and house, else None)
`sample` draws attributes, `render` paints them (128x128x3 uint8), `caption` says them in the words of world.json.
What a caption does not say is always the same (see the end of world.json), so that a caption determines its
picture up to a little jitter of place, size, tilt and tint: the network never has to guess.

The held-out part is a fixed eighth of all (color, shape, background) triples; training never sees them together.
"""

import json
import math
import pathlib
import random
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WORLD = json.loads((pathlib.Path(__file__).parent / "world.json").read_text())
SIZE = WORLD["size"]
FINE = 3  # drawn so many times larger, then averaged down
COLORS = {name: tuple(rgb) for name, rgb in WORLD["colors"].items()}
SHAPES = list(WORLD["shapes"])
SIZES = list(WORLD["sizes"])
PLACES = list(WORLD["places"])
STYLES = list(WORLD["styles"])
SCENES = list(WORLD["scenes"])
TIMES = list(WORLD["times"])

# Radius range by count and size: nothing under 27 pixels across, and at least five pixels between neighbours,
# or an 8x latent glues them together. Three in a row have no room for sizes: the word is then ignored.
RADIUS = {
    1: {"small": (14.5, 17), "medium": (24, 28), "large": (39, 43)},
    2: {"small": (14, 15.5), "medium": (18.5, 20), "large": (23, 24.5)},
    3: {"small": (15, 16.5), "medium": (15, 16.5), "large": (15, 16.5)},
}
OFFSET = {"small": 38, "medium": 30, "large": 17}
SPREAD = {1: (0,), 2: (-31, 31), 3: (-42, 0, 42)}
DIRECTION = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}


# ------------------------------------------------------------------------------------- attributes


def is_held_out(color, shape, background):
    c, s, b = list(COLORS).index(color), SHAPES.index(shape), list(COLORS).index(background)
    return (5 * c + 3 * s + b) % 8 == 1


def default_background(color, style):
    if style == "neon":
        return "black"
    return WORLD["default_background_of_white"] if color == WORLD["default_background"] else WORLD["default_background"]


def sample(rng, scene_share=0.3, flat_share=0.6, held_out=False):
    """One picture's attributes from random.Random rng; held_out: only held-out triples, flat."""
    style = "flat" if held_out or rng.random() < flat_share else rng.choice(STYLES[1:])
    if not held_out and rng.random() < scene_share:
        scene = rng.choice(SCENES)
        color = WORLD["scenes"][scene]["color"]
        if color and rng.random() < 0.6:
            color = rng.choice([c for c in COLORS if not (style == "neon" and c == "black")])
        return dict(kind="scene", style=style, scene=scene, time=rng.choice(TIMES), color=color)
    while True:
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        background = rng.choice(list(COLORS))
        if not held_out and rng.random() < 0.2:
            background = default_background(color, style)
        if color == background or is_held_out(color, shape, background) != held_out:
            continue
        if style == "neon" and color == "black":
            continue
        count = rng.choices((1, 2, 3), (0.5, 0.25, 0.25))[0]
        size = rng.choices(SIZES, (0.5, 0.25, 0.25))[0]
        place = rng.choice(PLACES) if count == 1 and rng.random() < 0.75 else "center"
        return dict(kind="shapes", style=style, color=color, shape=shape, background=background, count=count,
                    size=size, place=place)


# ---------------------------------------------------------------------------------------- drawing


def outline_of(shape, r):
    """Corners of a shape of radius r around the origin."""
    if shape == "circle":
        return [(r * math.cos(a), r * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 49)[:-1]]
    if shape == "square":
        q = 0.88 * r
        return [(-q, -q), (q, -q), (q, q), (-q, q)]
    if shape == "triangle":
        return [(0, -1.0 * r), (1.08 * r, 0.84 * r), (-1.08 * r, 0.84 * r)]
    if shape == "star":
        radii = (1.14 * r, 0.46 * r)
        return [(radii[k % 2] * math.sin(k * math.pi / 5), 0.06 * r - radii[k % 2] * math.cos(k * math.pi / 5))
                for k in range(10)]
    assert shape == "heart"
    return [(1.05 * r * math.sin(a) ** 3,
             -0.066 * r * (13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) - 0.05 * r)
            for a in np.linspace(0, 2 * math.pi, 61)[:-1]]


def tint(color, rng, amount=5):
    return tuple(int(min(255, max(0, v + rng.uniform(-amount, amount)))) for v in color)


def mixed(a, b, share):
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b))


def shape_layers(a, rng):
    layers = [([], tint(COLORS[a["background"]], rng))]
    color = tint(COLORS[a["color"]], rng)
    n, size = a["count"], a["size"]
    dx, dy = DIRECTION[a["place"]]
    r = rng.uniform(*RADIUS[n][size])
    for x in SPREAD[n]:
        cx = 64 + x + (dx * OFFSET[size] if n == 1 else 0) + rng.uniform(-1, 1) * (2.5 if n == 1 else 1)
        cy = 64 + (dy * OFFSET[size] if n == 1 else 0) + rng.uniform(-3, 3)
        tilt = math.radians(rng.uniform(-7, 7))
        c, s = math.cos(tilt), math.sin(tilt)
        layers.append(([(cx + c * px - s * py, cy + s * px + c * py) for px, py in outline_of(a["shape"], r)], color))
    return layers


SKY = {"day": (120, 190, 250), "sunset": (250, 150, 70), "night": (18, 26, 70)}
GROUND = {"day": (80, 180, 80), "sunset": (110, 110, 50), "night": (16, 60, 50)}
WATER = {"day": (40, 110, 210), "sunset": (150, 70, 110), "night": (14, 50, 110)}
SUN, MOON = (255, 225, 60), (245, 240, 205)


def shifted(points, x, y, scale=1.0):
    return [(x + scale * px, y + scale * py) for px, py in points]


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def at_time(color, time):
    """A thing's colour in the light of that time."""
    return {"day": color, "sunset": mixed(color, (120, 40, 20), 0.2), "night": mixed(color, (10, 14, 50), 0.38)}[time]


def scene_layers(a, rng):
    scene, time = a["scene"], a["time"]
    layers = [([], tint(SKY[time], rng, 4))]
    add = lambda points, color: layers.append((points, color))
    j = lambda amount: rng.uniform(-amount, amount)
    horizon = 84 + j(2) if scene in ("boat", "sea") else 94 + j(2)
    if time == "sunset":
        sun = (64 + j(10) if scene == "sea" else 98 + j(3), horizon if scene in ("sea", "boat") else 56 + j(3))
        add(shifted(outline_of("circle", 19), *sun), SUN)
    else:
        sun = (100 + j(3), 26 + j(3))
        add(shifted(outline_of("circle", 13.5), *sun), SUN if time == "day" else MOON)
    if time == "night":
        for x, y in ((22, 22), (52, 40), (70, 16)):
            add(shifted(outline_of("star", 5), x + j(2), y + j(2)), MOON)
    if scene == "mountains":
        for x, y, w, h in ((86 + j(4), horizon, 44, 46), (42 + j(4), horizon, 48, 58)):
            add([(x - w, y + 1), (x, y - h), (x + w, y + 1)], at_time((105, 110, 135), time))
            add([(x - 0.3 * w, y - 0.7 * h), (x, y - h), (x + 0.3 * w, y - 0.7 * h), (x, y - 0.56 * h)],
                at_time((246, 246, 250), time))
    add(box(-9, horizon, 137, 137), tint((WATER if scene in ("boat", "sea") else GROUND)[time], rng, 4))
    if scene == "boat":
        x, y = 54 + j(4), horizon + 8 + j(1.5)
        add([(x + 2, y - 52), (x + 32, y - 8), (x + 2, y - 8)], at_time((250, 250, 250), time))
        add([(x - 3, y - 42), (x - 3, y - 8), (x - 25, y - 8)], at_time((235, 235, 240), time))
        add([(x - 36, y - 4), (x + 36, y - 4), (x + 24, y + 14), (x - 24, y + 14)], at_time(COLORS[a["color"]], time))
    if scene == "sea":
        for k, x in enumerate((32, 88, 50)):
            add(box(x - 16 + j(3), horizon + 9 + 11 * k, x + 16 + j(3), horizon + 13 + 11 * k),
                mixed(WATER[time], (255, 235, 190), 0.45))
    if scene == "house":
        x, y = 50 + j(4), horizon + 6
        add(box(x - 27, y - 38, x + 27, y), at_time(COLORS[a["color"]], time))
        add([(x - 34, y - 37), (x, y - 65), (x + 34, y - 37)], at_time((150, 70, 50), time))
        add(box(x - 18, y - 22, x - 5, y), at_time((90, 50, 30), time))
        add(box(x + 6, y - 27, x + 19, y - 14), (255, 236, 140) if time == "night" else at_time((200, 230, 250), time))
    if scene == "tree":
        x, y = 52 + j(5), horizon + 8
        add(box(x - 6, y - 36, x + 6, y), at_time((120, 76, 40), time))
        add(shifted(outline_of("circle", 26), x, y - 54), at_time((40, 140, 60), time))
    return layers


def painted(layers, fine=FINE):
    """Filled polygons, anti-aliased (fine = 1: not)."""
    image = Image.new("RGB", (SIZE * fine, SIZE * fine), layers[0][1])
    draw = ImageDraw.Draw(image)
    for points, color in layers[1:]:
        draw.polygon([(x * fine, y * fine) for x, y in points], fill=color)
    return image.reduce(fine) if fine > 1 else image


def watercolor(layers, rng, noise):
    image = painted([(points, mixed(color, (255, 252, 244), 0.34)) for points, color in layers])
    out = np.asarray(image.filter(ImageFilter.GaussianBlur(2.2)), np.float32)
    stains = Image.fromarray(noise.normal(128, 40, (6, 6)).clip(0, 255).astype(np.uint8))
    stains = np.asarray(stains.resize((SIZE, SIZE), Image.BICUBIC), np.float32)[..., None] - 128
    return out + 0.16 * stains


def neon(layers, scene):
    ground = mixed(layers[0][1], (8, 8, 16), 0.86 if scene else 0.8)
    image = Image.new("RGB", (SIZE * FINE, SIZE * FINE), (0, 0, 0))
    draw = ImageDraw.Draw(image)
    for points, color in layers[1:]:
        points = [(x * FINE, y * FINE) for x, y in points]
        draw.polygon(points, fill=(0, 0, 0))
        draw.line(points + points[:2], fill=mixed(color, (255, 255, 255), 0.12), width=5 * FINE, joint="curve")
    sharp = image.reduce(FINE)
    glow = np.asarray(sharp.filter(ImageFilter.GaussianBlur(4.5)), np.float32)
    return np.asarray(sharp, np.float32) * 0.9 + glow * 0.9 + np.asarray(ground, np.float32)


def pixel_art(layers):
    blocks = np.asarray(painted(layers, 1))[2::4, 2::4]  # one colour per 4x4 block, no half tones
    return blocks.repeat(4, 0).repeat(4, 1)


def render(a, seed):
    """Paints attributes; the same seed gives the same picture. [128, 128, 3] uint8."""
    rng = random.Random(seed)
    layers = shape_layers(a, rng) if a["kind"] == "shapes" else scene_layers(a, rng)
    if a["style"] == "watercolor":
        out = watercolor(layers, rng, np.random.default_rng(rng.getrandbits(32)))
    elif a["style"] == "neon":
        out = neon(layers, a["kind"] == "scene")
    elif a["style"] == "pixel":
        out = pixel_art(layers)
    else:
        out = np.asarray(painted(layers))
    return np.clip(out, 0, 255).astype(np.uint8)


# ----------------------------------------------------------------------------------------- words


def plural(word):
    return word + ("es" if word.endswith("x") else "s")


def joined(*parts):
    text = " ".join(p for p in parts if p)
    return text.replace(" ,", ",").replace("  ", " ")


def article(text):
    return re.sub(r"\ba (?=orange|ocean|image|illustration)", "an ", text)


def noun_phrase(a, rng, untold=0.0):
    """'two small red stars': count, size, colour (left untold now and then), thing."""
    filler = rng.choice(WORLD["ignored"]["adjectives"]) if rng.random() < 0.2 else ""
    if a["kind"] == "scene":
        word = rng.choice(WORLD["scenes"][a["scene"]]["words"])
        color = a["color"]
        if color and color == WORLD["scenes"][a["scene"]]["color"] and rng.random() < 0.5:
            color = ""
        start = "the" if a["scene"] == "sea" else rng.choice(("a", "a", "a", "one", "the"))
        if a["scene"] == "mountains":
            start = "a" if word.endswith("landscape") else rng.choice(("", "", "the"))
        return joined(start, filler, color or "", word)
    words = WORLD["shape_words"][a["shape"]]
    word = words[0] if rng.random() < 0.75 else rng.choice(words)
    number = rng.choice(WORLD["counts"][str(a["count"])])
    if number == "a" and rng.random() < 0.15:
        number = ""
    first = [filler, rng.choice(WORLD["sizes"][a["size"]])]
    rng.shuffle(first)
    color = "" if untold and rng.random() < untold else a["color"]
    return joined(number, *first, color, word if a["count"] == 1 else plural(word))


def is_default(a, key):
    if key == "background":
        return a["background"] == default_background(a["color"], a["style"])
    return a.get(key) == {"place": "center", "style": "flat", "time": "day"}[key]


def phrase(a, rng, untold):
    """One line: 'a neon heart on the left, black background'."""
    thing, opening = noun_phrase(a, rng, untold), rng.choice(WORLD["openings"])
    parts = []
    if a["kind"] == "shapes":
        parts.append(rng.choice(WORLD["places"][a["place"]]))
        if not is_default(a, "background") or rng.random() < 0.5:
            parts.append(rng.choice(WORLD["backgrounds"]).format(bg=a["background"]))
            if rng.random() < 0.2:
                parts.reverse()
    else:
        parts.append(rng.choice(WORLD["times"][a["time"]]))
    style = rng.choice(WORLD["styles"][a["style"]])
    if not style:
        return opening + joined(thing, *parts)
    if rng.random() < 0.3:
        bare = style in ("neon", "watercolor", "pixel art", "flat")
        if bare and not opening and rng.random() < 0.5:
            return joined(style + " of", thing, *parts)
        return opening + joined(style + ",", thing, *parts)
    return opening + joined(thing, *parts, rng.choice((", ", ", ", "")) + style)


def paragraph(a, rng, untold):
    """A few sentences, the subject first, the rest in any order among words that mean nothing here."""
    said, ignored = WORLD["sentences"], WORLD["ignored"]
    first, rest = noun_phrase(a, rng, untold), []
    keys = ("place", "background", "style") if a["kind"] == "shapes" else ("time", "style")
    for key in keys:
        if is_default(a, key) and rng.random() < 0.5:
            continue
        inline = {"place": WORLD["places"], "style": WORLD["styles"], "time": WORLD["times"]}.get(key)
        if rng.random() < 0.35:
            choice = rng.choice(inline[a[key]]) if inline else rng.choice(WORLD["backgrounds"]).format(bg=a[key])
            if choice or is_default(a, key):
                first = joined(first, choice)
                continue
        choices = said[key] if key == "background" else said[key][a[key]]
        rest.append(rng.choice(choices).format(bg=a.get("background")))
    for _ in range(rng.randint(0, 4)):
        rest.append(rng.choice(ignored["light"] + ignored["composition"]))
    rng.shuffle(rest)
    end = rng.choice((". ", ". ", ", "))
    return rng.choice(WORLD["openings"]) + end.join([first] + rest) + rng.choice((".", ".", ""))


def caption(a, rng, untold=0.0):
    """untold: how often a shape's colour is not said; the painter then chooses."""
    text = paragraph(a, rng, untold) if rng.random() < 0.4 else phrase(a, rng, untold)
    return article(text.strip())


if __name__ == "__main__":  # a look at the data: world.py OUT.png
    import sys

    rng = random.Random(1)
    rows = []
    for _ in range(8):
        row = []
        for _ in range(12):
            a = sample(rng)
            row.append(render(a, rng.getrandbits(32)))
            print(caption(a, rng))
        rows.append(np.concatenate(row, 1))
    Image.fromarray(np.concatenate(rows)).save(sys.argv[1])
