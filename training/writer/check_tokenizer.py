"""Compares the training encoder with llama-server's: python3 check_tokenizer.py TOKENIZER_JSON URL

Hundreds of seeded texts (conversations, made-up words, scripts, emoji, control characters, spaces) must give
the same ids, and the chat template must give the tokens that the writer was trained on.  LLAMA_API_KEY or
--key is sent when set.  Standard library only.
"""

import argparse
import json
import os
import random
import sys
import urllib.request

from chat import sample
from tokenizer import Tokenizer
from words import SCRIPTS, invent

ODD = ["", " ", "  ", "   a  b ", "\n", "a\n\nb\t c", "\u2581x", "a\u2581b", "\u00a0", "\u200d", "e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
       "<0x41>", "<s", "unk>", "``", "\u201cquoted\u201d", "tr\u00e8s na\u00efve", "\uffff", "\U0010fffd", "\x01\x7f", "A" * 300, "1234567890", "C:\\temp\\x"]


def post(url, path, body, key):
    head = {"Content-Type": "application/json"}
    if key:
        head["Authorization"] = "Bearer " + key
    request = urllib.request.Request(url.rstrip("/") + path, json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("tokenizer")
    p.add_argument("url")
    p.add_argument("--key", default=os.environ.get("LLAMA_API_KEY"))
    p.add_argument("--count", type=int, default=600)
    a = p.parse_args()
    tokenizer, rng = Tokenizer.load(a.tokenizer), random.Random(99)
    texts = list(ODD)
    while len(texts) < a.count:
        texts += [t for _, t in sample(rng)] + [invent(rng)]
        texts.append("".join(rng.choice(rng.choice(SCRIPTS) + "abc XYZ.,\n") for _ in range(rng.randint(1, 40))))
        texts.append("".join(chr(rng.choice((rng.randint(1, 0x2FF), rng.randint(0x300, 0xD7FF), rng.randint(0xE000, 0x10FFFF)))) for _ in range(12)))
    wrong = 0
    for text in texts:
        theirs = post(a.url, "/tokenize", {"content": text}, a.key)["tokens"]
        ours = tokenizer.encode(text)
        if ours != theirs:
            wrong += 1
            print(f"differs: {text!r}\n  ours   {ours}\n  theirs {theirs}")
    talks = 0
    while talks < 60:
        talk = sample(rng)
        talks += 1
        messages = [{"role": r, "content": t} for r, t in talk[:-1]]
        text = post(a.url, "/apply-template", {"messages": messages}, a.key)["prompt"]
        theirs = post(a.url, "/tokenize", {"content": text, "add_special": True}, a.key)["tokens"]
        ours = tokenizer.chat(talk[:-1] + [("assistant", "")])[0][:-1]
        if ours != theirs:
            wrong += 1
            print(f"chat differs: {talk[:-1]!r}\n  ours   {ours}\n  theirs {theirs}")
    print(f"{len(texts)} texts and {talks} chats compared, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
