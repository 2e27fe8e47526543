#!/usr/bin/env python3
"""Makes taesd_small.tensors and taesd_small.safetensors: what the tiny autoencoder should compute.

    make_taesd.py [FOLDER]         needs what make_golden.py needs

Written from AutoencoderTiny's diagram, at its real depth and a quarter of its width, with weights that are a hash as
make_golden.py's are, and its tensor names. The two pictures are make_golden.py's, walked by its small U-Net: from the same
noise, and from the same picture to start from, but with this autoencoder at both ends. They hold what a graph cannot say:
that latents come as the U-Net has them, with no family's scale.
"""
import sys

import torch
import torch.nn.functional as F

import make_golden as g
from make_golden import kernel, last, tensors, weight

WIDTH, BLOCKS = 16, (1, 3, 3, 3)  # of the encoder, from the picture on; the decoder has them backwards


def make_block(name):
    for i in (0, 2, 4):
        kernel(f"{name}.conv.{i}", WIDTH, WIDTH, 3)


def block(x, name):
    h = F.relu(g.conv(x, name + ".conv.0"))
    h = F.relu(g.conv(h, name + ".conv.2"))
    return F.relu(g.conv(h, name + ".conv.4") + x)


class Half:
    """A list of (kind, inputs, outputs), numbered as in a torch Sequential. base, scale: of the last layer's weights, so that
    its output is about as large as a latent or a picture is."""

    def __init__(self, prefix, layers, base, scale):
        self.prefix, self.layers = prefix, layers
        for i, (kind, inputs, outputs) in enumerate(layers):
            if kind == "conv":
                kernel(f"{prefix}{i}", outputs, inputs, 3)
            elif kind == "last":
                weight(f"{prefix}{i}.weight", [outputs, inputs, 3, 3], scale=scale)
                weight(f"{prefix}{i}.bias", [outputs], base=base, scale=0.1)
            elif kind in ("halve", "doubled"):
                weight(f"{prefix}{i}.weight", [outputs, inputs, 3, 3])
            elif kind == "block":
                make_block(f"{prefix}{i}")

    def __call__(self, x):
        for i, (kind, _, _) in enumerate(self.layers):
            name = f"{self.prefix}{i}"
            if kind in ("conv", "last"):
                x = g.conv(x, name)
            elif kind == "halve":
                x = F.conv2d(x, tensors[name + ".weight"], None, 2, 1)
            elif kind == "double":
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            elif kind == "doubled":
                x = F.conv2d(x, tensors[name + ".weight"], None, 1, 1)
            elif kind == "relu":
                x = F.relu(x)
            else:
                x = block(x, name)
        return x


def make_encoder():
    layers = []
    for level, count in enumerate(BLOCKS):
        layers.append(("halve", WIDTH, WIDTH) if level else ("conv", 3, WIDTH))
        layers += [("block", WIDTH, WIDTH)] * count
    return Half("encoder.layers.", layers + [("last", WIDTH, 4)], 0, 0.5)


def make_decoder():
    layers = [("conv", 4, WIDTH), ("relu", 0, 0)]
    for level, count in enumerate(reversed(BLOCKS)):
        layers += [("block", WIDTH, WIDTH)] * count
        if level < len(BLOCKS) - 1:
            layers += [("double", 0, 0), ("doubled", WIDTH, WIDTH)]
    return Half("decoder.layers.", layers + [("last", WIDTH, 3)], 0.5, 0.01)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else __file__.rsplit("/", 1)[0]
    g.make_text()
    g.make_unet()
    g.listing.clear()
    encoder, decoder = make_encoder(), make_decoder()
    out = {}

    def encode(x):
        return encoder((x + 1) / 2)

    def decode(z):
        return decoder(torch.tanh(z / 3) * 3) * 2 - 1

    z = 2 * torch.randn(1, 4, 5, 3)
    out["vae.z"], out["vae.out"] = last(z), last(decode(z))
    x = torch.rand(1, 3, 40, 24) * 2 - 1
    out["vae.picture"], out["vae.latent"] = last(x), last(encode(x))

    context = g.encode_text(torch.tensor([g.frame(g.PROMPT), g.frame(g.NEGATIVE)]))
    g.encode_picture, g.decode = encode, decode
    out["picture.out"] = last(g.picture(context, "eps", 5, 4, 42, scale=1))
    start = torch.randint(0, 256, (1, 3, 40, 32), generator=torch.Generator().manual_seed(7))
    out["start.bytes"] = last(start.float())
    out["start.out"] = last(g.picture(context, "eps", 5, 4, 42, start / 127.5 - 1, 0.6, scale=1))
    with open(folder + "/taesd_small.tensors", "w") as f:
        f.write("\n".join(g.listing) + "\n")
    g.save(out, folder + "/taesd_small.safetensors")


if __name__ == "__main__":
    main()
