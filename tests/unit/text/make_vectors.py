#!/usr/bin/env python3
"""Makes tokenizer.json: texts and the ids that Hugging Face's `tokenizers` gives them, set up as transformers'
CLIPTokenizer sets it up (normaliser, split, byte level, byte-pair model with "</w>").

Needs python3-tokenizers (Debian 14, 0.23) and CLIP's merges (deps/clip_merges.py); no weights, no network:
    make_vectors.py .deps/clip/merges.txt > tokenizer.json
The random texts use characters of Unicode 3.2 only, so that two programs with tables of different age must
still agree.
"""
import json
import random
import sys
import unicodedata

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

TEXTS = [
    "", " ", "a red circle on a blue background", "A photo of an Astronaut riding a HORSE",
    "masterpiece, best quality, (intricate details:1.3), [blurry], 8k uhd, f/1.8, 35mm",
    "it's we're I've I'm they'll he'd don't 'tis rock'n'roll '''s ''",
    "three cats, 3 cats, 1234567890 cats, 3.14159, x2 y3", "line one\nline two\ttabbed\r\n  and   spaces  ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "lalalalalalalalalalalalalala", "supercalifragilisticexpialidocious",
    "!!! ??? ... ,,, ;;; --- ___ +++ === *** ### @@@ $$$ %%% ^^^ &&& ((( ))) [[[ ]]] {{{ }}} <<< >>> ~~~ ``` ||| \\\\\\",
    "C:\\path\\to\\file.txt https://example.org/a?b=c&d=e#f user@example.org",
    "caf\u00e9 cafe\u0301 na\u00efve r\u00e9sum\u00e9 \u00c5ngstr\u00f6m A\u030angstro\u0308m \u1e69 s\u0323\u0307 s\u0307\u0323",
    "\u00dcber stra\u00dfe GROSSE STRA\u1e9eE \u00c4\u00d6\u00dc", "\u0130stanbul I\u0131 \u0130I\u0131i TITLE \u01c5 \u01c4",
    "\u039f\u0394\u039f\u03a3 \u03bf\u03b4\u03bf\u03c2 \u03a3\u03a3\u03a3 \u03aa\u0301", "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0419 \u0418\u0306",
    "\u732b\u3068\u72ac \u6771\u4eac\u30bf\u30ef\u30fc \uff8a\uff9d\uff76\uff78 \u304c \u304b\u3099", "\uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab\u1100\u116e\u11a8 \uac00\u11a8",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0915\u093c \u0958 \u0967\u0968\u0969", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \u2600\ufe0f\u200b\u2060",
    "\U0001d400\U0001d401\U0001d402 \U0001d7d8\U0001d7d9 \uff21\uff22\uff23 \uff11\uff12", "x\u00b2 + y\u00b3 = \u00bd \u2163 \u2173 \u2460 \u3007 \u4e00",
    "a\u00a0b\u2003c\u3000d\u1680e\u2028f\u2029g\u0085h\u200bi\ufeffj", "a\x01b\x1cc\x1dd\x1ee\x1ff\x7fg",
    "\u212b \u2126 \u212a \u1f71 \ufb01 \ufb2c \u0344 \u0f73 \U0001d160", "\u00aa \u00ba \u02b0 \u0294 \u01bb \u16ee \u2180 \u303a",
    "e\u0301\u0323\u0302\u0327 \u0301\u0301 \u0301a a\u0327\u0301 \u1100\u1161 \u0f71\u0f72",
    "\u017ftrange \u017f 'S 'T DON'T \u2019s don\u2019t", "<|startoftext|> <|endoftext|> a<|endoftext|>b !<|startoftext|>! <|end",
    "a " * 80 + "end", "\u00e9" * 200,
    "highly detailed, digital painting, artstation, concept art, smooth, sharp focus, illustration, art by greg rutkowski and alphonse mucha",
]


def random_texts(count):
    rng = random.Random(20)
    old = unicodedata.ucd_3_2_0
    known = [chr(c) for c in range(0x20, 0x11000) if not 0xD800 <= c < 0xE000 and old.category(chr(c)) not in ("Cn", "Co", "Cs")]
    latin = [c for c in known if ord(c) < 0x250]
    marks = [c for c in known if old.combining(c)]
    for _ in range(count):
        pools = rng.choice([[latin], [latin, marks], [known], [known, latin], [known, marks, latin]])
        yield "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 24)))


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        merges = [tuple(line.split(" ")) for line in f.read().split("\n")[1:48894 + 1]]
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocabulary = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(vocabulary)}, merges=merges,
                                     continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    out = []
    for text in TEXTS + list(random_texts(300)):
        out.append(json.dumps([text, tokenizer.encode(text, add_special_tokens=False).ids]))
    print("[\n" + ",\n".join(out) + "\n]")


if __name__ == "__main__":
    main()
