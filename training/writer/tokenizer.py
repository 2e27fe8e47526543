"""The writer's tokenizer: a SentencePiece-like vocabulary with scores and byte fallback.

Two halves: train() learns byte-pair merges from sample text, Tokenizer encodes exactly as llama.cpp's
"llama" tokenizer does with add_space_prefix off (checked string by string by check_tokenizer.py):
spaces become U+2581, the neighbours whose joined piece has the highest score are joined first (ties: the
leftmost), and what is no piece in the end falls apart into bytes.  No piece has U+2581 anywhere but at
its start, so a text can be encoded word by word.

Ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes, then the roles' marks, then the pieces.
"""

import json
import re
from collections import Counter
from functools import lru_cache

SPACE = "\u2581"
UNK, BOS, EOS, FIRST_BYTE = 0, 1, 2, 3
MARKS = ["<|system|>", "<|user|>", "<|assistant|>"]
SPECIAL = {"<unk>": UNK, "<s>": BOS, "</s>": EOS, **{m: 259 + i for i, m in enumerate(MARKS)}}
LETTERS = "".join(chr(c) for c in range(0x21, 0x7F)) + SPACE + "áàâäãåæçéèêëíîïñóôöøúüßšžčěřłń’“”–—…"
WORD = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")


def train(texts, size):
    """-> pieces in order of importance, LETTERS first; size counts all ids."""
    counts = Counter()
    for text in texts:
        counts.update(re.findall(f" ?[A-Za-z{LETTERS[95:]}]+| ?[0-9]| ?[^ A-Za-z0-9]", text))
    words = {w.replace(" ", SPACE): n for w, n in counts.items() if n > 1}
    split = {w: list(w) for w in words}
    pieces = list(LETTERS)
    pairs, where = Counter(), {}
    for w, parts in split.items():
        for a, b in zip(parts, parts[1:]):
            pairs[a, b] += words[w]
            where.setdefault((a, b), set()).add(w)
    while len(pieces) + 259 + len(MARKS) < size:
        best = max(pairs.items(), key=lambda x: (x[1], x[0]))[0]
        joined = best[0] + best[1]
        if joined not in pieces and all(c in LETTERS for c in joined):
            pieces.append(joined)
        for w in list(where.get(best, ())):
            old, new, i = split[w], [], 0
            while i < len(old):
                if i + 1 < len(old) and (old[i], old[i + 1]) == best:
                    new.append(joined)
                    i += 2
                else:
                    new.append(old[i])
                    i += 1
            for a, b in zip(old, old[1:]):
                pairs[a, b] -= words[w]
            for a, b in zip(new, new[1:]):
                pairs[a, b] += words[w]
                where.setdefault((a, b), set()).add(w)
            split[w] = new
        pairs.pop(best, None)
    return pieces


class Tokenizer:
    """pieces in order of importance; ids as in the module's essay."""

    def __init__(self, pieces):
        first = 259 + len(MARKS)
        self.pieces = pieces
        self.ids = {p: first + i for i, p in enumerate(pieces)}
        self.size = first + len(pieces)
        self.word = lru_cache(maxsize=200000)(self._word)

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            return cls(json.load(f)["pieces"])

    def save(self, path):
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"pieces": self.pieces}, f, ensure_ascii=False, indent=0)

    def _word(self, word):
        parts = list(word)
        while True:
            best = None
            for i in range(len(parts) - 1):
                rank = self.ids.get(parts[i] + parts[i + 1])
                if rank is not None and (best is None or rank < best[0]):
                    best = rank, i
            if best is None:
                break
            i = best[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        out = []
        for p in parts:
            if p in self.ids:
                out.append(self.ids[p])
            else:
                out += [FIRST_BYTE + b for b in p.encode("utf-8")]
        return tuple(out)

    def encode(self, text):
        """Plain text, no special tokens."""
        out = []
        for word in WORD.findall(text.replace(" ", SPACE)):
            out += self.word(word)
        return out

    def decode(self, ids):
        names = {v: k for k, v in SPECIAL.items()}
        first, data = 259 + len(MARKS), b""
        for i in ids:
            if FIRST_BYTE <= i < 259:
                data += bytes([i - FIRST_BYTE])
            else:
                data += (names[i] if i in names else self.pieces[i - first]).encode("utf-8")
        return data.decode("utf-8", "replace").replace(SPACE, " ")

    def chat(self, conversation):
        """[(role, text)] -> (ids, learn): learn marks the assistant's tokens and their ends.

        The same text as the chat template in export.py makes."""
        ids, learn = [BOS], [False]
        for role, text in conversation:
            mine = role == "assistant"
            ids.append(SPECIAL[f"<|{role}|>"])
            learn.append(False)
            body = self.encode(text if mine else " " + text.strip()) + ([EOS] if mine else [])
            ids += body
            learn += [mine] * len(body)
        return ids, learn
