#!/usr/bin/env python3
"""What must not be in the repository: generated files, large files outside models/starter, source files
beyond 800 lines, conflict marks."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
bad = []
for name in filter(None, names):
    path = ROOT / name
    if not path.is_file():
        continue
    size = path.stat().st_size
    limit = 24_000_000 if name.startswith("models/starter/") else 2_000_000
    if size > limit:
        bad.append(f"{name}: {size} bytes; at most {limit} belong in the repository")
    if re.search(r"(^|/)(node_modules|build[^/]*|\.deps|__pycache__)/", name):
        bad.append(f"{name}: generated, does not belong in the repository")
    if re.match(r"src/.*\.[ch]$", name):
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > 800:
            bad.append(f"{name}: {lines} lines; split it by reason to change")
    if path.suffix in {".c", ".h", ".py", ".mjs", ".ts", ".vue", ".md", ".sh", ".yaml"}:
        if re.search(r"^(<<<<<<<|>>>>>>>) ", path.read_text(encoding="utf-8", errors="replace"), re.M):
            bad.append(f"{name}: holds a conflict mark")
print(*bad, sep="\n")
sys.exit(1 if bad else 0)
