"""Writes the trained parts as one SD 1.x safetensors file in f16, and reads such a file back into the networks.

    export.py FILE

Every tensor has the name it has in a real SD 1.x checkpoint. Two things are folded in:
- CLIP's table gets its 49,408 rows; those that no caption used share one row, the one trained as "any other word".
- The latent of training has unit variance. The file's latent is to be multiplied by SD's 0.18215 after encoding and
  divided by it before decoding, so the two 1x1 convolutions beside the latent carry the inverse: post_quant_conv
  multiplies by 0.18215 and quant_conv divides.
What tensors cannot say (heads, prediction, defaults) is in the metadata.
"""

import json
import pathlib
import struct
import sys

import numpy as np
import torch

import clip_tokens
import nets
import train_autoencoder as ae
import train_text
import train_unet

OUT = pathlib.Path(__file__).parent / "out"
SCALE = 0.18215
TEXT, UNET, VAE = "cond_stage_model.transformer.text_model.", "model.diffusion_model.", "first_stage_model."
METADATA = {
    "format": "pt",
    "mysti.name": "starter-painter",
    "mysti.unet_heads": str(train_unet.SHAPE["heads"]),
    "mysti.text_heads": str(train_text.HEADS),
    "mysti.prediction": "v",
    "mysti.default_width": "128",
    "mysti.default_height": "128",
    "mysti.default_steps": "20",
    "mysti.default_cfg_scale": "3",
    "mysti.default_sampler": "euler",
    "mysti.default_scheduler": "normal",
}


def one_by_one(scale, channels):
    """Weight and bias of a 1x1 convolution that multiplies by a number."""
    return torch.eye(channels).mul(scale).view(channels, channels, 1, 1), torch.zeros(channels)


def text_tensors():
    saved = torch.load(OUT / "text.pt")
    state, ids = dict(saved["encoder"]), torch.tensor(saved["ids"])
    key = "embeddings.token_embedding.weight"
    small = state[key]
    table = small[-1].expand(clip_tokens.END + 1, -1).clone()
    table[ids] = small[:-1]
    state[key] = table
    return state


def tensors():
    out = {TEXT + k: v for k, v in text_tensors().items()}
    out.update({UNET + k: v for k, v in torch.load(OUT / "unet.pt")["average"].items()})
    out.update({VAE + "decoder." + k: v for k, v in torch.load(OUT / "decoder.pt").items()})
    weight, bias = one_by_one(SCALE, 4)
    out[VAE + "post_quant_conv.weight"], out[VAE + "post_quant_conv.bias"] = weight, bias
    if (OUT / "encoder.pt").exists():
        out.update({VAE + "encoder." + k: v for k, v in torch.load(OUT / "encoder.pt").items()})
        weight, bias = one_by_one(1 / SCALE, 8)
        weight[4:], bias[4:] = 0, -30.0  # the second half is the logarithm of a variance: none
        out[VAE + "quant_conv.weight"], out[VAE + "quant_conv.bias"] = weight, bias
    return out


def write(path, state, metadata):
    """safetensors: u64 length of the JSON header, the header, the data; largest alignment first, names sorted."""
    header, at, blobs = {"__metadata__": metadata}, 0, []
    for name in sorted(state):
        blob = state[name].detach().to(torch.float16).contiguous().numpy().tobytes()
        header[name] = dict(dtype="F16", shape=list(state[name].shape), data_offsets=[at, at + len(blob)])
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return 8 + len(text) + at


def read(path):
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    metadata, state = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        a, b = entry["data_offsets"]
        values = np.frombuffer(data, np.float16, (b - a) // 2, 8 + length + a).astype(np.float32)
        state[name] = torch.from_numpy(values).reshape(entry["shape"])
    return state, metadata


def under(state, prefix):
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def load(path):
    """(unet, text encoder, function from divided latent to picture, tokenizer) of a finished file."""
    state, metadata = read(path)
    assert metadata["mysti.prediction"] == "v"
    unet = nets.UNet(**train_unet.SHAPE)
    unet.load_state_dict(under(state, UNET))
    text = nets.TextEncoder(clip_tokens.END + 1, train_text.WIDTH, int(metadata["mysti.text_heads"]), train_text.LAYERS)
    text.load_state_dict(under(state, TEXT))
    decoder = nets.Decoder(ae.BASE, ae.MULT)
    decoder.load_state_dict(under(state, VAE + "decoder."))
    weight, bias = state[VAE + "post_quant_conv.weight"], state[VAE + "post_quant_conv.bias"]
    return unet, text, lambda z: decoder(torch.nn.functional.conv2d(z, weight, bias)), clip_tokens.Tokenizer()


if __name__ == "__main__":
    size = write(sys.argv[1], tensors(), METADATA)
    print(f"{sys.argv[1]}: {size / 1e6:.2f} MB")
