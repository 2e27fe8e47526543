#!/usr/bin/env python3
"""Writes a text model of any size with random weights, for measurements that need a large one and nobody's download.

usage: tests/bench/random_text_model.py OUT.gguf [--mib 256] [--context 8192]

The shape is Llama's, the tokenizer that of the starter writer, so llama-server takes it and writes nonsense at
the speed of a real model of that size (Q8_0). The same arguments give the same file.
"""
import argparse
import pathlib
import random
import struct

ROOT = pathlib.Path(__file__).resolve().parents[2]
STARTER = ROOT / "models/starter/starter-writer.gguf"
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, LIST, U32, F32 = 8, 9, 4, 6
TYPE_F32, TYPE_Q8_0 = 0, 8
ALIGN = 32


def read_metadata(path):
    """{key: (type, its value's bytes as they stand in the file)}"""
    data = path.read_bytes()
    magic, _, _, count = struct.unpack_from("<4sIQQ", data)
    if magic != b"GGUF":
        raise SystemExit(f"{path} is no GGUF file")
    at, found = 24, {}

    def text_end(i):
        return i + 8 + struct.unpack_from("<Q", data, i)[0]

    def end(kind, i):
        if kind == TEXT:
            return text_end(i)
        if kind == LIST:
            inner, n = struct.unpack_from("<IQ", data, i)
            i += 12
            if inner in SIZES:
                return i + n * SIZES[inner]
            for _ in range(n):
                i = end(inner, i)
            return i
        return i + SIZES[kind]

    for _ in range(count):
        key = data[at + 8:text_end(at)].decode()
        at = text_end(at)
        kind, = struct.unpack_from("<I", data, at)
        begin, at = at + 4, end(kind, at + 4)
        found[key] = (kind, data[begin:at])
    return found


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def shapes(mib):
    """(width, feed-forward width, heads, blocks) of about that size."""
    width = 512 if mib < 128 else 1024 if mib < 1024 else 2048
    forward = width * 11 // 4
    block = (4 * width * width + 3 * width * forward) * 34 / 32
    return width, forward, width // 64, max(1, round(mib * 2**20 / block))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--context", type=int, default=8192)
    a = parser.parse_args()
    width, forward, heads, blocks = shapes(a.mib)
    meta = {k: v for k, v in read_metadata(STARTER).items() if k.startswith("tokenizer.")}
    meta["general.architecture"] = (TEXT, text("llama"))
    meta["general.name"] = (TEXT, text(f"random {a.mib} MiB"))
    for key, value in {"context_length": a.context, "embedding_length": width, "block_count": blocks,
                       "feed_forward_length": forward, "attention.head_count": heads,
                       "attention.head_count_kv": heads, "rope.dimension_count": 64, "vocab_size": 2048}.items():
        meta[f"llama.{key}"] = (U32, struct.pack("<I", value))
    for key, value in {"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-5}.items():
        meta[f"llama.{key}"] = (F32, struct.pack("<f", value))

    tensors = [("token_embd.weight", (width, 2048)), ("output_norm.weight", (width,))]
    for b in range(blocks):
        tensors += [(f"blk.{b}.attn_norm.weight", (width,)), (f"blk.{b}.ffn_norm.weight", (width,))]
        tensors += [(f"blk.{b}.attn_{x}.weight", (width, width)) for x in ("q", "k", "v", "output")]
        tensors += [(f"blk.{b}.ffn_gate.weight", (width, forward)), (f"blk.{b}.ffn_up.weight", (width, forward)),
                    (f"blk.{b}.ffn_down.weight", (forward, width))]

    # A block of Q8_0 is a half-precision scale and 32 signed bytes; this scale keeps activations near 1.
    scale = struct.pack("<e", 1 / 73 / width**0.5)
    numbers = random.Random(1)
    blocks_of = b"".join(scale + numbers.randbytes(32) for _ in range(1 << 15))
    with open(a.out, "wb") as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(meta)))
        for key, (kind, value) in meta.items():
            f.write(text(key) + struct.pack("<I", kind) + value)
        at, plan = 0, []
        for name, dims in tensors:
            count = dims[0] * (dims[1] if len(dims) == 2 else 1)
            size = count * 4 if len(dims) == 1 else count // 32 * 34
            f.write(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims,
                                             TYPE_F32 if len(dims) == 1 else TYPE_Q8_0, at))
            plan.append((len(dims), count, size))
            at += -(-size // ALIGN) * ALIGN
        f.write(b"\0" * (-f.tell() % ALIGN))
        for rank, count, size in plan:
            if rank == 1:
                f.write(struct.pack("<f", 1.0) * count)
            else:
                start = numbers.randrange(0, 1 << 14) * 34  # each tensor another stretch of the same noise
                pattern = blocks_of[start:] + blocks_of[:start]
                f.write((pattern * (size // len(pattern) + 1))[:size])
            f.write(b"\0" * (-size % ALIGN))
    print(f"{a.out}: {blocks} blocks of width {width}, {pathlib.Path(a.out).stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
