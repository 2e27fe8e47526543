#!/usr/bin/env python3
"""The direction of the dependencies, as ARCHITECTURE.md draws it: a folder of src/ includes itself and the
folders listed for it, nothing else. The engine is seen from outside through engine.h alone."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAY_INCLUDE = {
    "base": set(),
    "http": {"base"},
    "engine": {"base"},
    "sd_worker": {"base", "http", "engine"},
    "llm_worker": {"base"},
    "server": {"base", "http"},
    "cli": {"base"},
}
ENGINE_FROM_OUTSIDE = {"engine/engine.h"}

bad = []
for path in sorted((ROOT / "src").rglob("*.[ch]")):
    inside = path.relative_to(ROOT / "src")
    folder = inside.parts[0]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m:
            continue
        name = m[1]
        target = name.split("/")[0] if "/" in name else folder
        if target == folder or (ROOT / "src" / folder / name).exists() or target not in MAY_INCLUDE:
            continue
        if target not in MAY_INCLUDE[folder]:
            bad.append(f"src/{inside}:{number}: {folder} must not include {name}")
        elif target == "engine" and name not in ENGINE_FROM_OUTSIDE:
            bad.append(f"src/{inside}:{number}: only engine/engine.h is seen from outside, not {name}")
print(*bad, sep="\n")
sys.exit(1 if bad else 0)
