"""Draws the training pictures: out/pictures.npy [N, 128, 128, 3] uint8 and out/attributes.json.

    make_data.py [N] [SEED]      48,000 pictures take about two minutes on one core
"""

import json
import pathlib
import random
import sys
import time

import numpy as np

import world

OUT = pathlib.Path(__file__).parent / "out"


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 48000
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 2024)
    OUT.mkdir(exist_ok=True)
    start = time.time()
    pictures = np.lib.format.open_memmap(OUT / "pictures.part", "w+", np.uint8, (count, world.SIZE, world.SIZE, 3))
    attributes = []
    for i in range(count):
        attributes.append(world.sample(rng))
        pictures[i] = world.render(attributes[-1], rng.getrandbits(32))
    pictures.flush()
    (OUT / "attributes.json").write_text(json.dumps(attributes))
    (OUT / "pictures.part").rename(OUT / "pictures.npy")
    print(f"{count} pictures in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
