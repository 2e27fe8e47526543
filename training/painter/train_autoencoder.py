"""Trains the 8x autoencoder and turns the pictures into latents.

    train_autoencoder.py joint   [STEPS]   latent and decoder together       -> out/latent.pt, out/decoder.pt
    train_autoencoder.py latents           every picture's latent            -> out/latents.pt
    train_autoencoder.py decoder [STEPS]   the decoder alone, latent frozen  -> out/decoder.pt
    train_autoencoder.py polish  [STEPS]   the decoder on what the U-Net makes       -> out/decoder.pt
    train_autoencoder.py encoder [STEPS]   SD's encoder learns the latent    -> out/encoder.pt
    train_autoencoder.py look    OUT.png   reconstructions of unseen pictures, with the error

The latent is half designed, half learned. Three of its four channels are the mean colour of the 8x8 pixels in
opponent colours, each scaled to unit variance: a network that paints them gets colours right first, which is
what people look at. The fourth is learned by a small patch network beside the decoder and says what the mean
cannot: where in the cell the edge runs. All four see noise while the decoder learns, so that the decoder
forgives what the U-Net leaves a little wrong and the fourth channel holds only what survives.

Because the latent is frozen early (`joint` is short), the U-Net trains while the decoder still improves. SD's
encoder, which the file carries for image to image, is taught the finished latent last.
"""

import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import nets

OUT = pathlib.Path(__file__).parent / "out"
BASE, MULT = 16, (1, 2, 4, 4)
ENCODER_BASE, ENCODER_MULT = 12, (1, 2, 4, 4)
UNSEEN = 400  # the last pictures are never trained on
NOISE = 0.3
OPPONENT = torch.tensor([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]]) / torch.tensor([[3.0], [2.0], [2.0]])


class Latent(nn.Module):
    """[B, 3, H, W] in -1..1 -> [B, 4, H/8, W/8]; three fixed channels and a learned one, all of unit variance."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Sequential(
            nn.PixelUnshuffle(8), nn.Conv2d(192, 96, 3, padding=1), nn.SiLU(), nn.Conv2d(96, 64, 3, padding=1),
            nn.SiLU(), nn.Conv2d(64, 1, 1), nn.BatchNorm2d(1, affine=False, momentum=0.05))
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))

    def colors(self, x):
        return torch.einsum("oc,bchw->bohw", OPPONENT, F.avg_pool2d(x, 8))

    def calibrate(self, x):
        c = self.colors(x)
        self.mean.copy_(c.mean((0, 2, 3), keepdim=True))
        self.std.copy_(c.std((0, 2, 3), keepdim=True))

    def forward(self, x):
        return torch.cat([(self.colors(x) - self.mean) / self.std, self.patch(x).float()], 1)


def as_input(pictures):
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


class Crops:
    """Batches of 64x64 crops on the 8-pixel grid, preferring ones with something in them, or whole pictures."""

    def __init__(self, pictures, seed):
        self.pictures, self.rng = pictures, np.random.default_rng(seed)

    def crop(self):
        picture = self.pictures[self.rng.integers(len(self.pictures))]
        best = None
        for y, x in self.rng.integers(0, 9, (2, 2)) * 8:
            part = picture[y : y + 64, x : x + 64]
            spread = part[::8, ::8].astype(np.float32).std()
            if best is None or spread > best[0]:
                best = (spread, part)
        return best[1]

    def batch(self, size, whole):
        if whole:
            return as_input(self.pictures[np.sort(self.rng.integers(len(self.pictures), size=size // 4))])
        return as_input(np.stack([self.crop() for _ in range(size)]))


def difference(y, x):
    """L1, plus L1 of the differences between neighbours: edges stay where they are and stay sharp."""
    r = y - x
    l1 = r.abs().mean()
    edges = (r[..., 1:] - r[..., :-1]).abs().mean() + (r[..., 1:, :] - r[..., :-1, :]).abs().mean()
    return l1, l1 + 0.5 * edges + 0.5 * r.pow(2).mean()


def load_pictures():
    return np.load(OUT / "pictures.npy", mmap_mode="r")


def training_pictures(count=16000):
    """In memory: random reads of a mapped file cost more than the training step's arithmetic."""
    return np.array(load_pictures()[:-UNSEEN][:count])


def load_latent():
    latent = Latent()
    latent.load_state_dict(torch.load(OUT / "latent.pt"))
    return latent.eval()


def train(modules, loss_of, steps, rate, checkpoint, warmup=50):
    """Runs loss_of(step) -> (loss, shown) for so many steps; resumes from and writes `checkpoint` every 200."""
    parameters = [p for m in modules for p in m.parameters()]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        for module, state in zip(modules, saved["modules"]):
            module.load_state_dict(state)
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    start, shown = time.time(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / warmup) * (0.5 * (1 + math.cos(math.pi * step / steps)) * 0.97 + 0.03)
        loss, value = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        shown.append(value)
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} {time.time() - start:.0f} s L1 {127.5 * np.mean(shown[-100:]):.2f}/255", flush=True)
        if (step + 1) % 200 == 0:
            torch.save(dict(modules=[m.state_dict() for m in modules], optimizer=optimizer.state_dict(), step=step + 1), checkpoint)


def noisy(z):
    """Noise of its own strength for each picture, mostly little."""
    return z + torch.randn_like(z) * NOISE * torch.rand(len(z), 1, 1, 1) ** 2


def joint(steps):
    pictures = training_pictures()
    latent, decoder, crops = Latent(), nets.Decoder(BASE, MULT), Crops(pictures, 1)
    latent.calibrate(as_input(pictures[:2000]))

    def loss_of(step):
        x = crops.batch(16, False)
        with torch.autocast("cpu", torch.bfloat16):
            y = decoder(noisy(latent(x)))
        l1, loss = difference(y.float(), x)
        return loss, l1.item()

    train([latent, decoder], loss_of, steps, 2e-3, OUT / "joint.part")
    torch.save(latent.state_dict(), OUT / "latent.pt")
    torch.save(decoder.state_dict(), OUT / "decoder.pt")


def latents():
    pictures, latent, out = load_pictures(), load_latent(), []
    with torch.no_grad():
        for i in range(0, len(pictures), 100):
            out.append(latent(as_input(pictures[i : i + 100])).half())
    out = torch.cat(out)
    torch.save(out, OUT / "latents.pt")
    flat = out.float().transpose(0, 1).flatten(1)
    print("latents", tuple(out.shape), "mean", flat.mean(1).tolist(), "std", flat.std(1).tolist())


def decoder_alone(steps):
    pictures, latent = training_pictures(), load_latent()
    decoder, crops = nets.Decoder(BASE, MULT), Crops(pictures, 2)
    decoder.load_state_dict(torch.load(OUT / "decoder.pt"))

    def loss_of(step):
        x = crops.batch(16, step > 0.6 * steps)
        with torch.no_grad():
            z = noisy(latent(x))
        with torch.autocast("cpu", torch.bfloat16):
            y = decoder(z)
        l1, loss = difference(y.float(), x)
        return loss, l1.item()

    train([decoder], loss_of, steps, 1.5e-3, OUT / "decoder.part")
    torch.save(decoder.state_dict(), OUT / "decoder.pt")


def polish(steps):
    """Half of the latents are the U-Net's own guess of a picture from a somewhat noisy latent: its way of being
    a little wrong is not white noise, and the decoder can learn to put it right. Small stars, the finest things
    of this world and the last to be recognised, make a third of the pictures."""
    import diffusion
    import train_unet

    pictures, z = load_pictures(), torch.load(OUT / "latents.pt")
    text = torch.load(OUT / "contexts.pt")["text"]
    unet, decoder = nets.UNet(**train_unet.SHAPE).eval(), nets.Decoder(BASE, MULT)
    unet.load_state_dict(torch.load(OUT / "unet.pt")["average"])
    decoder.load_state_dict(torch.load(OUT / "decoder.pt"))
    rng, count = np.random.default_rng(4), len(pictures) - UNSEEN
    attributes = json.loads((OUT / "attributes.json").read_text())[:count]
    stars = np.array([i for i, a in enumerate(attributes) if a["kind"] == "shapes" and a["shape"] == "star"
                      and a["style"] == "flat" and (a["count"] > 1 or a["size"] == "small")])

    def loss_of(step):
        pick = rng.permutation(np.concatenate([rng.integers(count, size=4), rng.choice(stars, 2)]))
        x, latent = as_input(pictures[pick]), z[pick].float()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            t = torch.randint(100, 600, (3,))
            noised, _ = diffusion.noised(latent[::2], torch.randn_like(latent[::2]), t)
            ac = diffusion.AC.float()[t].view(-1, 1, 1, 1)
            guess = ac.sqrt() * noised - (1 - ac).sqrt() * unet(noised, t, text[pick[::2], 0]).float()
            latent = noisy(latent)
            latent[::2] = guess
        with torch.autocast("cpu", torch.bfloat16):
            y = decoder(latent)
        l1, loss = difference(y.float(), x)
        return loss, l1.item()

    train([decoder], loss_of, steps, 6e-4, OUT / "polish.part")
    torch.save(decoder.state_dict(), OUT / "decoder.pt")


def encoder_alone(steps):
    pictures, latent = training_pictures(), load_latent()
    encoder, crops = nets.Encoder(ENCODER_BASE, ENCODER_MULT), Crops(pictures, 3)

    def loss_of(step):
        x = crops.batch(16, step > 0.7 * steps)
        with torch.no_grad():
            z = latent(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = encoder(x)
        error = (y[:, :4].float() - z).abs().mean()
        return error, error.item() / 127.5

    train([encoder], loss_of, steps, 2e-3, OUT / "encoder.part")
    torch.save(encoder.state_dict(), OUT / "encoder.pt")


def look(path):
    from PIL import Image

    latent, decoder = load_latent(), nets.Decoder(BASE, MULT)
    decoder.load_state_dict(torch.load(OUT / "decoder.pt"))
    pictures = load_pictures()[-UNSEEN:][:96]
    x = as_input(pictures)
    with torch.no_grad():
        z = latent(x)
        y = decoder(z).clamp(-1, 1)
    mse = ((y - x) * 127.5).pow(2).mean((1, 2, 3))
    print(f"PSNR {(10 * torch.log10(255**2 / mse)).mean():.2f} dB, L1 {(y - x).abs().mean() * 127.5:.2f}/255")
    y = ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    extra = (z[:, 3:].clamp(-2, 2) * 63 + 127).byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    rows = []
    for r in range(4):
        for images in (pictures, y, extra.repeat(8, 1).repeat(8, 2)):
            rows.append(np.concatenate(list(images[12 * r : 12 * r + 12]), 1))
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    torch.manual_seed(7)
    what, argument = sys.argv[1], sys.argv[2:]
    if what == "latents":
        latents()
    elif what == "look":
        look(argument[0])
    else:
        run, default = {"joint": (joint, 1600), "decoder": (decoder_alone, 1600), "encoder": (encoder_alone, 700), "polish": (polish, 1000)}[what]
        run(int(argument[0]) if argument else default)
