#!/usr/bin/env python3
"""Runs the measurements whose programs are here and says what the others want. Results are read into docs/bench.md
by hand, with the machine they came from.

usage: tests/bench/run.py [--nginx PATH] [--checkpoint FILE] [--torch-python COMMAND]

  together   text and pictures at once under each policy, with the starter models and with a larger text model
  memory     models that do not fit together, under a limit of memory (8 GB on the disk, and a control group)
  waiting    a thousand clients in the queue
  parking    what a conversation pays for its model having been set aside
  proxy      requests per second, time per event, memory; against nginx when it is given or found
  engine     a full-size checkpoint at 512x512 (tests/bench/random_sd15.py writes one), against PyTorch when a python
             with torch is given; the memory of each way to draw; how soon a cancel is obeyed at 1024x1024
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

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

    run("together, starter models", [sys.executable, HERE / "together.py"])
    with tempfile.TemporaryDirectory(prefix="mysti-bench-") as folder:
        model = pathlib.Path(folder) / "random.gguf"
        run("a larger text model", [sys.executable, HERE / "random_text_model.py", model, "--mib", "256"])
        run("together, larger", [sys.executable, HERE / "together.py", "--llm-model", model, "--size", "512",
                                 "--steps", "12", "--rounds", "3", "--seconds", "4"])
        run("parking", [sys.executable, HERE / "parking.py", "--llm-model", model])
    run("memory", [sys.executable, HERE / "memory.py"])
    run("waiting", ["node", HERE / "waiting.mjs"])
    if a.nginx:
        run("proxy", [sys.executable, HERE / "proxy.py", "--nginx", a.nginx])
    else:
        print("\n== proxy: nginx is not here; name it with --nginx PATH", flush=True)
    if a.checkpoint:
        run("engine", [sys.executable, HERE / "engine.py", "--checkpoint", a.checkpoint,
                       *(["--torch-python", a.torch_python] if a.torch_python else [])])
        run("ways", [ROOT / "build/bin/bench_ways", a.checkpoint])
        run("cancel", [ROOT / "build/bin/bench_cancel", a.checkpoint])
    else:
        print("\n== engine: name a full-size checkpoint with --checkpoint FILE", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
