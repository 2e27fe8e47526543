#!/usr/bin/env python3
"""The tables of docs/acceptance.md and docs/complaints.md name tests: a text in double quotes that follows the name of a
suite is the name of a test there, with ... for what was left out. Each has to exist."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUITES = r"(?:api|e2e|chaos|unit|golden)"


def squeezed(text):
    return re.sub(r"\s+", " ", text.replace("\\'", "'").replace("`", "'"))


sources = {folder: "".join(squeezed(path.read_text(encoding="utf-8"))
                           for pattern in ("*.mjs", "*.c", "*/*.c") for path in (ROOT / "tests" / folder).glob(pattern))
           for folder in ("api", "e2e", "chaos", "unit", "golden")}
bad = []
for name in ("docs/acceptance.md", "docs/complaints.md"):
    for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            continue
        # api/text "one", "two"; e2e/kill "three"
        for suite, quotes in re.findall(rf'\b({SUITES})(?:/\w+)* (?:[a-z_]+ )?((?:"[^"]+"(?:, (?:and )?)?)+)', line):
            for quoted in re.findall(r'"([^"]+)"', quotes):
                parts = [squeezed(part).strip() for part in quoted.split("...")]
                if not all(part in sources[suite] for part in parts):
                    bad.append(f'{name}:{number}: {suite} has no test "{quoted}"')
print(*bad, sep="\n")
sys.exit(1 if bad else 0)
