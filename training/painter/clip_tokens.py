"""CLIP's byte-pair tokenizer, for captions of the painter's world (lower-case ASCII words and punctuation).

The merges are those that the build fetches (deps/clip_merges.py writes .deps/clip/merges.txt); the engine has
its own tokenizer in C, the tests hold both against the same vectors. This one needs no Unicode classes.
"""

import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
START, END, LENGTH = 49406, 49407, 77


def merges():
    path = ROOT / ".deps" / "clip" / "merges.txt"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run deps/clip_merges.py first")
    lines = path.read_text("utf-8").split("\n")[1:]  # the first says what it is; "# #" further down is a merge
    return [tuple(line.split(" ")) for line in lines[: 49152 - 256 - 2]]


def byte_letters():
    """CLIP's letters for the 256 bytes: printable ones are themselves, the rest come after them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    for b in range(256):
        letters.setdefault(b, chr(256 + len(letters) - len(plain)))
    order = plain + [b for b in range(256) if b not in set(plain)]
    return letters, [letters[b] for b in order]


class Tokenizer:
    def __init__(self):
        pairs = merges()
        self.letters, order = byte_letters()
        names = order + [c + "</w>" for c in order] + ["".join(p) for p in pairs]
        self.ids = {name: i for i, name in enumerate(names)}
        assert len(names) == START, len(names)
        self.rank = {pair: i for i, pair in enumerate(pairs)}
        self.word = functools.cache(self.word)

    def word(self, word):
        parts = [self.letters[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: self.rank.get((parts[i], parts[i + 1]), 1 << 30))
            if (parts[best], parts[best + 1]) not in self.rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        return [self.ids[p] for p in parts]

    def __call__(self, text):
        """Token numbers of the text alone, without start and end."""
        words = re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\s\w]+|_+", " ".join(text.lower().split()))
        return [i for w in words for i in self.word(w)]

    def row(self, text):
        """The 77 numbers that the text encoder gets: start, text, end, end ..."""
        ids = [START] + self(text)[: LENGTH - 2] + [END]
        return ids + [END] * (LENGTH - len(ids))


if __name__ == "__main__":
    t = Tokenizer()
    assert t("a photo of a cat") == [320, 1125, 539, 320, 2368] and t("hello world!") == [3306, 1002, 256], \
        (t("a photo of a cat"), t("hello world!"))
    print("ok")
