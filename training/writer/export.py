"""Writes the trained writer as a llama-architecture GGUF: python3 export.py [--out DIR] [--file GGUF]

Matrices in Q8_0, norms in F32, the tokenizer and the chat template inside.  Query and key rows are reordered
from halves to neighbouring pairs, the order in which llama.cpp rotates them.  The output matrix is the
embedding (llama.cpp takes that when output.weight is absent).  --random exports untrained weights.
"""

import argparse
import os

import gguf
import numpy as np
import torch

from model import CONFIG, Writer
from tokenizer import BOS, EOS, MARKS, UNK, Tokenizer

# The same text as Tokenizer.chat() encodes; <s> is added by llama.cpp (add_bos_token).
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}{{- '<|assistant|>' + message.content + '</s>' -}}"
    "{%- elif message.role == 'system' -%}{{- '<|system|> ' + (message.content | trim) -}}"
    "{%- else -%}{{- '<|user|> ' + (message.content | trim) -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def interleave(rows, heads):
    """[heads * D, W]: row i and i + D/2 of each head become neighbours."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


TEMPERATURE = 0.3


def add_tokenizer(w, tokenizer):
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + MARKS + tokenizer.pieces
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256 + [kinds.CONTROL] * len(MARKS)
    types += [kinds.NORMAL] * len(tokenizer.pieces)
    scores = [0.0] * (259 + len(MARKS)) + [-float(i) for i in range(len(tokenizer.pieces))]
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(BOS)
    w.add_eos_token_id(EOS)
    w.add_unk_token_id(UNK)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(False)
    w.add_chat_template(TEMPLATE)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser()
    p.add_argument("--out", default=os.path.join(here, "out"))
    p.add_argument("--file", default=os.path.join(here, "out", "starter-writer.gguf"))
    p.add_argument("--random", action="store_true")
    a = p.parse_args()
    tokenizer = Tokenizer.load(os.path.join(a.out, "tokenizer.json"))
    model, c = Writer(), CONFIG
    if not a.random:
        model.load_state_dict(torch.load(os.path.join(a.out, "checkpoint.pt"), weights_only=False)["model"])
    w = gguf.GGUFWriter(a.file, "llama")
    w.add_name("Mysti starter writer")
    w.add_license("MIT")
    w.add_description("Turns a short picture idea into one vivid paragraph.")
    w.add_context_length(c["context"])
    w.add_embedding_length(c["width"])
    w.add_block_count(c["layers"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_head_count_kv(c["heads"])
    w.add_rope_dimension_count(c["width"] // c["heads"])
    w.add_rope_freq_base(c["rope_base"])
    w.add_layer_norm_rms_eps(c["eps"])
    w.add_vocab_size(c["vocab"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    # What llama.cpp samples with when a request does not say: cooler than its 0.8, subjects are kept better.
    w.add_float32("general.sampling.temp", TEMPERATURE)
    add_tokenizer(w, tokenizer)

    def matrix(name, value):
        data = gguf.quants.quantize(np.ascontiguousarray(value, dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
        w.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    def vector(name, value):
        w.add_tensor(name, np.ascontiguousarray(value, dtype=np.float32))

    s = {k: v.float().numpy() for k, v in model.state_dict().items()}
    matrix("token_embd.weight", s["embed.weight"])
    vector("output_norm.weight", s["norm"])
    for i in range(c["layers"]):
        ours, theirs = f"blocks.{i}.", f"blk.{i}."
        q, k, v = np.split(s[ours + "qkv.weight"], 3)
        gate, up = np.split(s[ours + "gate_up.weight"], 2)
        vector(theirs + "attn_norm.weight", s[ours + "attn_norm"])
        matrix(theirs + "attn_q.weight", interleave(q, c["heads"]))
        matrix(theirs + "attn_k.weight", interleave(k, c["heads"]))
        matrix(theirs + "attn_v.weight", v)
        matrix(theirs + "attn_output.weight", s[ours + "out.weight"])
        vector(theirs + "ffn_norm.weight", s[ours + "ffn_norm"])
        matrix(theirs + "ffn_gate.weight", gate)
        matrix(theirs + "ffn_up.weight", up)
        matrix(theirs + "ffn_down.weight", s[ours + "down.weight"])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{a.file}: {os.path.getsize(a.file)} bytes, {sum(q.numel() for q in model.parameters())} parameters")


if __name__ == "__main__":
    main()
