#!/usr/bin/env python3
"""Writes a Stable Diffusion 1.5 checkpoint of full size with random weights, for measurements that need one and nobody's
download. Needs nothing but Python.

usage: tests/bench/random_sd15.py OUT.safetensors

The names and shapes are those of the single-file checkpoints (U-Net, VAE with both halves, text encoder), in f16. Each matrix
is noise of the deviation that keeps activations near 1, so pictures are noise, too, and every number is one. The same file
comes out each time.
"""
import json
import math
import random
import struct
import sys

WIDTH, MULTIPLIERS, TEXT_WIDTH = 320, (1, 2, 4, 4), 768
UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."
NOISE = 1 << 20  # values of noise, of which each tensor takes another stretch

shapes = {}  # name: (shape, deviation; None: all ones)


def put(name, shape, deviation):
    shapes[name] = (shape, deviation)


def norm(name, channels):
    put(name + ".weight", (channels,), None)
    put(name + ".bias", (channels,), 0)


def linear(name, inputs, outputs, has_bias=True):
    put(name + ".weight", (outputs, inputs), inputs ** -0.5)
    if has_bias:
        put(name + ".bias", (outputs,), 0.02)


def conv(name, inputs, outputs, side):
    put(name + ".weight", (outputs, inputs, side, side), (inputs * side * side) ** -0.5)
    put(name + ".bias", (outputs,), 0.02)


def unet_residual(name, inputs, outputs):
    norm(name + ".in_layers.0", inputs)
    conv(name + ".in_layers.2", inputs, outputs, 3)
    linear(name + ".emb_layers.1", 4 * WIDTH, outputs)
    norm(name + ".out_layers.0", outputs)
    conv(name + ".out_layers.3", outputs, outputs, 3)
    if inputs != outputs:
        conv(name + ".skip_connection", inputs, outputs, 1)


def unet_transformer(name, channels):
    norm(name + ".norm", channels)
    conv(name + ".proj_in", channels, channels, 1)
    block = name + ".transformer_blocks.0."
    for attention, seen in (("attn1", channels), ("attn2", TEXT_WIDTH)):
        linear(f"{block}{attention}.to_q", channels, channels, False)
        linear(f"{block}{attention}.to_k", seen, channels, False)
        linear(f"{block}{attention}.to_v", seen, channels, False)
        linear(f"{block}{attention}.to_out.0", channels, channels)
    linear(block + "ff.net.0.proj", channels, 8 * channels)
    linear(block + "ff.net.2", 4 * channels, channels)
    for i in (1, 2, 3):
        norm(f"{block}norm{i}", channels)
    conv(name + ".proj_out", channels, channels, 1)


def unet():
    linear(UNET + "time_embed.0", WIDTH, 4 * WIDTH)
    linear(UNET + "time_embed.2", 4 * WIDTH, 4 * WIDTH)
    conv(UNET + "input_blocks.0.0", 4, WIDTH, 3)
    skips, now, index = [WIDTH], WIDTH, 1
    for level, times in enumerate(MULTIPLIERS):
        for _ in range(2):
            unet_residual(f"{UNET}input_blocks.{index}.0", now, WIDTH * times)
            now = WIDTH * times
            if level < 3:
                unet_transformer(f"{UNET}input_blocks.{index}.1", now)
            skips.append(now)
            index += 1
        if level < 3:
            conv(f"{UNET}input_blocks.{index}.0.op", now, now, 3)
            skips.append(now)
            index += 1
    unet_residual(UNET + "middle_block.0", now, now)
    unet_transformer(UNET + "middle_block.1", now)
    unet_residual(UNET + "middle_block.2", now, now)
    for index in range(12):
        level = 3 - index // 3
        unet_residual(f"{UNET}output_blocks.{index}.0", now + skips.pop(), WIDTH * MULTIPLIERS[level])
        now = WIDTH * MULTIPLIERS[level]
        if level < 3:
            unet_transformer(f"{UNET}output_blocks.{index}.1", now)
        if level and index % 3 == 2:
            conv(f"{UNET}output_blocks.{index}.{2 if level < 3 else 1}.conv", now, now, 3)
    norm(UNET + "out.0", now)
    conv(UNET + "out.2", now, 4, 3)


def vae_residual(name, inputs, outputs):
    norm(name + ".norm1", inputs)
    conv(name + ".conv1", inputs, outputs, 3)
    norm(name + ".norm2", outputs)
    conv(name + ".conv2", outputs, outputs, 3)
    if inputs != outputs:
        conv(name + ".nin_shortcut", inputs, outputs, 1)


def vae_middle(name, channels):
    vae_residual(name + ".block_1", channels, channels)
    norm(name + ".attn_1.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        conv(f"{name}.attn_1.{part}", channels, channels, 1)
    vae_residual(name + ".block_2", channels, channels)


def vae():
    conv(VAE + "encoder.conv_in", 3, 128, 3)
    now = 128
    for level, times in enumerate((1, 2, 4, 4)):
        for block in range(2):
            vae_residual(f"{VAE}encoder.down.{level}.block.{block}", now, 128 * times)
            now = 128 * times
        if level < 3:
            conv(f"{VAE}encoder.down.{level}.downsample.conv", now, now, 3)
    vae_middle(VAE + "encoder.mid", now)
    norm(VAE + "encoder.norm_out", now)
    conv(VAE + "encoder.conv_out", now, 8, 3)
    conv(VAE + "decoder.conv_in", 4, 512, 3)
    vae_middle(VAE + "decoder.mid", 512)
    now = 512
    for level, times in ((3, 4), (2, 4), (1, 2), (0, 1)):
        for block in range(3):
            vae_residual(f"{VAE}decoder.up.{level}.block.{block}", now, 128 * times)
            now = 128 * times
        if level:
            conv(f"{VAE}decoder.up.{level}.upsample.conv", now, now, 3)
    norm(VAE + "decoder.norm_out", now)
    conv(VAE + "decoder.conv_out", now, 3, 3)
    conv(VAE + "quant_conv", 8, 8, 1)
    conv(VAE + "post_quant_conv", 4, 4, 1)


def text():
    put(TEXT + "embeddings.token_embedding.weight", (49408, TEXT_WIDTH), 0.02)
    put(TEXT + "embeddings.position_embedding.weight", (77, TEXT_WIDTH), 0.01)
    for layer in range(12):
        name = f"{TEXT}encoder.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{name}self_attn.{part}", TEXT_WIDTH, TEXT_WIDTH)
        linear(name + "mlp.fc1", TEXT_WIDTH, 4 * TEXT_WIDTH)
        linear(name + "mlp.fc2", 4 * TEXT_WIDTH, TEXT_WIDTH)
        norm(name + "layer_norm1", TEXT_WIDTH)
        norm(name + "layer_norm2", TEXT_WIDTH)
    norm(TEXT + "final_layer_norm", TEXT_WIDTH)


def write(path):
    head, at = {}, 0
    for name, (shape, _) in shapes.items():
        size = 2 * math.prod(shape)
        head[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text_of_head = json.dumps(head).encode()
    text_of_head += b" " * (-len(text_of_head) % 8)
    numbers = random.Random(1)
    noise = [numbers.gauss(0, 1) for _ in range(NOISE)]
    stretches = {}  # of each deviation, as bytes
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text_of_head)) + text_of_head)
        for shape, deviation in shapes.values():
            size, start = 2 * math.prod(shape), 2 * numbers.randrange(NOISE)
            if deviation is None:
                out.write(struct.pack("<e", 1) * (size // 2))
                continue
            if deviation not in stretches:
                stretches[deviation] = struct.pack(f"<{NOISE}e", *(deviation * v for v in noise))
            stretch = stretches[deviation]
            stretch = stretch[start:] + stretch[:start]
            while size > 0:
                out.write(stretch[:size])
                size -= len(stretch)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    unet()
    vae()
    text()
    write(sys.argv[1])
