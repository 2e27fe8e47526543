"""Trains the starter LoRA, a drawing style: pen and ink with a pale wash. Writes FILE as kohya's scripts would.

    train_lora.py FILE [STEPS]       default 4,000 steps of 32 pictures; resumes from out/lora.pt
    train_lora.py --look OUT.png     pictures it is trained on

The painter itself is the finished file in models/starter; nothing of its own training is needed. Only flat pictures
are drawn in ink, and their captions say nothing of it: with the LoRA on, whatever is asked for comes in ink. The text
encoder stays as it is.

A linear layer or a convolution W becomes W + (alpha / rank) up down, with `up` zero at the start. The learning rate
falls to nothing over the whole run.
"""

import pathlib
import random
import sys
import time

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

import diffusion
import export
import nets
import train_autoencoder as ae
import world

HERE = pathlib.Path(__file__).parent
PAINTER = HERE.parents[1] / "models" / "starter" / "starter-painter.safetensors"
SAVED = HERE / "out" / "lora.pt"
RANK, ALPHA, BATCH, RATE, WARMUP, EMPTY = 8, 8, 32, 2e-3, 50, 0.1
PICTURES, CAPTIONS = 6000, 2
PAPER, INK = (250, 243, 226), (34, 30, 44)
PALE, LINE, SLIP = 0.5, 3.2, 2.5  # share of paper in the wash; pixels: width of the pen, how far the wash is off


# ------------------------------------------------------------------------------------------ pictures


def ink(a, seed):
    """world.render() with another hand. [128, 128, 3] uint8"""
    rng = random.Random(seed)
    layers = world.shape_layers(a, rng) if a["kind"] == "shapes" else world.scene_layers(a, rng)
    fine = world.FINE
    image = Image.new("RGB", (world.SIZE * fine,) * 2, world.mixed(layers[0][1], PAPER, PALE))
    draw = ImageDraw.Draw(image)
    for points, color in layers[1:]:
        wash = [((x + SLIP) * fine, (y + SLIP) * fine) for x, y in points]
        pen = [(x * fine, y * fine) for x, y in points]
        draw.polygon(wash, fill=world.mixed(color, PAPER, PALE))
        draw.line(pen + pen[:2], fill=INK, width=round(LINE * fine), joint="curve")
    return np.asarray(image.reduce(fine))


def make_data(count):
    """Attributes and pictures [N, 3, 128, 128] in -1..1, as bytes."""
    rng, attributes = random.Random(4711), []
    while len(attributes) < count:
        a = world.sample(rng, flat_share=1)
        attributes.append(a)
    return attributes, np.stack([ink(a, rng.getrandbits(32)) for a in attributes])


# ---------------------------------------------------------------------------------------------- LoRA


class Changed(nn.Module):
    """A layer of the painter, frozen, with its change beside it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        if isinstance(layer, nn.Linear):
            self.down = nn.Linear(layer.in_features, RANK, bias=False)
            self.up = nn.Linear(RANK, layer.out_features, bias=False)
        else:
            self.down = nn.Conv2d(layer.in_channels, RANK, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.up = nn.Conv2d(RANK, layer.out_channels, 1, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x, *rest):
        return self.layer(x, *rest) + self.up(self.down(x)) * (ALPHA / RANK)


def change(module, prefix=""):
    """Puts a Changed around every linear layer and convolution of the blocks; {name: it}."""
    found = {}
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        inside = path.startswith(("input_blocks", "middle_block", "output_blocks"))
        if inside and isinstance(child, (nn.Linear, nn.Conv2d)) and not isinstance(child, nets.ConvIn):
            found[path] = Changed(child)
            setattr(module, name, found[path])
        else:
            found.update(change(child, path))
    return found


def write(path, changes, metadata):
    state = {}
    for name, c in changes.items():
        key = "lora_unet_" + name.replace(".", "_")
        state[key + ".lora_down.weight"] = c.down.weight
        state[key + ".lora_up.weight"] = c.up.weight
        state[key + ".alpha"] = torch.tensor(float(ALPHA))
    return export.write(path, state, metadata)


# ------------------------------------------------------------------------------------------ training


def load():
    """The painter, its latents of the pictures, and its reading of their captions."""
    state, _ = export.read(PAINTER)
    unet, text, _, tokenizer = export.load(PAINTER)
    encoder = nets.Encoder(ae.ENCODER_BASE, ae.ENCODER_MULT)
    encoder.load_state_dict(export.under(state, export.VAE + "encoder."))
    weight, bias = state[export.VAE + "quant_conv.weight"], state[export.VAE + "quant_conv.bias"]
    attributes, pictures = make_data(PICTURES)
    rng, start = random.Random(8), time.time()
    rows = [[tokenizer.row(world.caption(a, rng)) for a in attributes] for _ in range(CAPTIONS)]
    with torch.no_grad():
        latents, contexts = [], []
        for i in range(0, PICTURES, 100):
            x = torch.from_numpy(pictures[i : i + 100]).permute(0, 3, 1, 2).float() / 127.5 - 1
            latents.append(nn.functional.conv2d(encoder(x), weight, bias)[:, :4] * export.SCALE)
            contexts.append(torch.stack([text(torch.tensor(r[i : i + 100])) for r in rows], 1).bfloat16())
        empty = text(torch.tensor([tokenizer.row("")])).bfloat16()
    print(f"{PICTURES} pictures in {time.time() - start:.0f} s", flush=True)
    return unet, torch.cat(latents), torch.cat(contexts), empty


def train(path, steps):
    unet, latents, contexts, empty = load()
    unet.requires_grad_(False)
    torch.manual_seed(31)
    changes = change(unet)
    trained = nn.ModuleList(changes.values())
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.01)
    first = 0
    if SAVED.exists():
        saved = torch.load(SAVED)
        trained.load_state_dict(saved["trained"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    print(f"{sum(p.numel() for p in parameters)} parameters in {len(changes)} layers, from step {first} to {steps}", flush=True)
    torch.manual_seed(300 + first)
    losses, start = [], time.time()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP) * (1 - step / steps)
        pick = torch.randint(0, PICTURES, (BATCH,))
        context = contexts[pick, torch.randint(0, CAPTIONS, (BATCH,))]
        context[torch.rand(BATCH) < EMPTY] = empty
        t = torch.randint(0, 1000, (BATCH,))
        x, wanted = diffusion.noised(latents[pick], torch.randn(BATCH, *latents.shape[1:]), t)
        with torch.autocast("cpu", torch.bfloat16):
            v = unet(x, t, context)
        loss = (v.float() - wanted).pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1}/{steps} {time.time() - start:.0f} s loss {np.mean(losses[-50:]):.4f}", flush=True)
            part = SAVED.with_suffix(".part")
            torch.save(dict(trained=trained.state_dict(), optimizer=optimizer.state_dict(), step=step + 1), part)
            part.rename(SAVED)
    size = write(path, changes, {
        "ss_output_name": pathlib.Path(path).stem,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(ALPHA),
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": PAINTER.name,
        "ss_steps": str(steps),
    })
    print(f"{path}: {size / 1e6:.2f} MB")


def look(path):
    _, pictures = make_data(64)
    Image.fromarray(np.concatenate([np.concatenate(pictures[i : i + 8], 1) for i in range(0, 64, 8)])).save(path)


if __name__ == "__main__":
    if sys.argv[1] == "--look":
        look(sys.argv[2])
    else:
        SAVED.parent.mkdir(exist_ok=True)
        train(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4000)
