#!/usr/bin/env python3
"""Makes the tokenizer's constant tables as C in the build folder.

    make_tables.py unicode OUT.c                 letters, numbers, lower case, canonical composition
    make_tables.py merges MERGES.txt OUT.c       CLIP's byte-pair merges (see deps/clip_merges.py)

The Unicode data is that of this Python's unicodedata module; its version stands in the generated file.
"""
import sys
import unicodedata

MAX = 0x110000


def rows(items, per_line=8):
    lines = []
    for i in range(0, len(items), per_line):
        lines.append("    " + ", ".join(items[i:i + per_line]) + ",")
    return "\n".join(lines)


def table(declaration, items, per_line=8):
    return f"{declaration} = {{\n{rows(items, per_line)}\n}};\n"


def char_class(c):
    category = unicodedata.category(chr(c))
    return {"L": "UNICODE_LETTER", "N": "UNICODE_NUMBER"}.get(category[0])


def runs(value_of):
    """[first, last, value] for every run of code points with the same value that is not None or 0."""
    out = []
    for c in range(MAX):
        value = value_of(c)
        if not value:
            continue
        if out and out[-1][1] == c - 1 and out[-1][2] == value:
            out[-1][1] = c
        else:
            out.append([c, c, value])
    return out


def lower_pairs():
    """One code point to one; the only longer lower case (U+0130) is written out in unicode.c."""
    pairs = []
    for c in range(MAX):
        low = chr(c).lower()
        if low != chr(c) and len(low) == 1:
            pairs.append((c, ord(low)))
        elif len(low) != 1:
            assert c == 0x130, f"U+{c:04X} has a lower case of {len(low)} code points: unicode.c must know it"
    return pairs


def decompositions():
    """Full canonical decompositions, Hangul (arithmetic) left out."""
    out = []
    for c in range(MAX):
        if 0xAC00 <= c < 0xD7A4 or 0xD800 <= c < 0xE000:
            continue
        full = unicodedata.normalize("NFD", chr(c))
        if full != chr(c):
            out.append((c, [ord(x) for x in full]))
    return out


def compositions(decomposed):
    """(first, second) -> composed, for those that NFC really composes."""
    out = []
    for c, _ in decomposed:
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2:
            a, b = (int(p, 16) for p in parts)
            if unicodedata.normalize("NFC", chr(a) + chr(b)) == chr(c):
                out.append((a, b, c))
    return sorted(out)


def unicode_tables(out):
    classes = runs(char_class)
    lower = lower_pairs()
    marks = runs(lambda c: unicodedata.combining(chr(c)))
    decomposed = decompositions()
    composed = compositions(decomposed)
    flat, at = [], []
    for c, parts in decomposed:
        at.append(f"{{0x{c:X}, {len(flat)}, {len(parts)}}}")
        flat += parts
    out.write(f"/* Made by make_tables.py from Unicode {unicodedata.unidata_version}. */\n")
    out.write('#include "engine/text/tables.h"\n\n')
    for name, items in (("class", classes), ("mark", marks)):
        out.write(table(f"const struct unicode_range unicode_{name}_ranges[]",
                        [f"{{0x{a:X}, 0x{b:X}, {v}}}" for a, b, v in items], 4))
        out.write(f"const unsigned unicode_{name}_count = {len(items)};\n\n")
    out.write(table("const struct unicode_pair unicode_lower[]", [f"{{0x{a:X}, 0x{b:X}}}" for a, b in lower], 6))
    out.write(f"const unsigned unicode_lower_count = {len(lower)};\n\n")
    out.write(table("const struct unicode_split unicode_splits[]", at, 5))
    out.write(f"const unsigned unicode_split_count = {len(decomposed)};\n\n")
    out.write(table("const uint32_t unicode_split_parts[]", [f"0x{c:X}" for c in flat], 10))
    out.write("\n")
    out.write(table("const struct unicode_join unicode_joins[]",
                    [f"{{0x{a:X}, 0x{b:X}, 0x{c:X}}}" for a, b, c in composed], 4))
    out.write(f"const unsigned unicode_join_count = {len(composed)};\n")


def byte_symbols():
    """GPT-2's printable stand-ins for the 256 bytes, in vocabulary order: [(byte, character)]."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return [(b, chr(b)) for b in printable] + [(b, chr(256 + i)) for i, b in enumerate(rest)]


def merge_tables(merges_path, out):
    count = 49408 - 2 * 256 - 2
    with open(merges_path, encoding="utf-8") as f:
        lines = f.read().split("\n")[1:count + 1]
    symbols = byte_symbols()
    ids = {s: i for i, (_, s) in enumerate(symbols)}
    ids.update({s + "</w>": 256 + i for i, (_, s) in enumerate(symbols)})
    pairs = []
    for rank, line in enumerate(lines):
        left, right = line.split(" ")
        assert left + right not in ids, f"merge {rank} makes '{left + right}' a second time"
        pairs.append((ids[left] << 16 | ids[right], rank))
        ids[left + right] = 512 + rank
    assert len(pairs) == count, f"{merges_path} has {len(pairs)} merges, {count} are needed"
    assert len({key for key, _ in pairs}) == count
    pairs.sort()
    byte_ids = [0] * 256
    for i, (byte, _) in enumerate(symbols):
        byte_ids[byte] = i
    out.write("/* Made by make_tables.py from CLIP's merges. */\n")
    out.write('#include "engine/text/tables.h"\n\n')
    out.write(table("const uint8_t clip_byte_ids[256]", [str(i) for i in byte_ids], 16))
    out.write("\n")
    out.write(table("const uint32_t clip_pairs[CLIP_MERGES]", [f"0x{k:08x}" for k, _ in pairs]))
    out.write("\n")
    out.write(table("const uint16_t clip_ranks[CLIP_MERGES]", [str(r) for _, r in pairs], 12))


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "unicode":
        with open(sys.argv[2], "w", encoding="utf-8") as out:
            unicode_tables(out)
    elif len(sys.argv) == 4 and sys.argv[1] == "merges":
        with open(sys.argv[3], "w", encoding="utf-8") as out:
            merge_tables(sys.argv[2], out)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
