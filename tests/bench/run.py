#!/usr/bin/env python3
"""Runs the measurements whose programs are here and says what the others want. Results are read into docs/bench.md
by hand, with the machine they came from.

usage: tests/bench/run.py [--nginx PATH] [--checkpoint FILE] [--torch-python COMMAND]

  together   text and pictures at once, with the starter models
  proxy      requests per second, time per event, memory; against nginx when it is given or found
  engine     a full-size checkpoint at 512x512 (tests/bench/make_random_sd15.py writes one), against PyTorch when
             a python with torch is given
"""
import argparse
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nginx", default=shutil.which("nginx") or shutil.which("/usr/sbin/nginx"))
    parser.add_argument("--checkpoint")
    parser.add_argument("--torch-python")
    a = parser.parse_args()
    status = 0

    def run(name, command):
        nonlocal status
        print(f"\n== {name}", flush=True)
        status |= subprocess.run([str(c) for c in command], cwd=ROOT, check=False).returncode

    run("together", [sys.executable, HERE / "together.py"])
    if a.nginx:
        run("proxy", [sys.executable, HERE / "proxy.py", "--nginx", a.nginx])
    else:
        print("\n== proxy: nginx is not here; name it with --nginx PATH", flush=True)
    if a.checkpoint:
        run("engine", [sys.executable, HERE / "engine.py", "--checkpoint", a.checkpoint,
                       *(["--torch-python", a.torch_python] if a.torch_python else [])])
    else:
        print("\n== engine: name a full-size checkpoint with --checkpoint FILE", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
