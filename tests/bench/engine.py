#!/usr/bin/env python3
"""The engine against PyTorch at full SD 1.5 size, in turns on the same machine.

    engine.py --engine build/bin/bench_engine --checkpoint sd15.safetensors --torch "python3" [--rounds 3] [--size 512]

--torch is the command that runs a Python with torch, e.g. "chroot ROOT python3"; --torch-script says where that Python
finds torch_sd15.py, when its root is another. Times on a shared machine wander: each round runs one after the other,
and what counts is the median over the rounds of the ratio within a round; beside it stand the ratio of the best times
and that of the processor time, which wander less."""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys


PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # as the worker runs, and fair to both: on shared cores spinning costs most


def run(command, env):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--engine", required=True)
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--torch", required=True)
    p.add_argument("--torch-script", default=os.path.join(here, "torch_sd15.py"))
    for name, value in (("--rounds", 3), ("--size", 512), ("--steps", 5), ("--decodes", 2), ("--threads", 2)):
        p.add_argument(name, type=int, default=value)
    a = p.parse_args()
    common = [f"--{k}={getattr(a, k)}" for k in ("size", "steps", "decodes", "threads")]
    rounds = []
    for i in range(a.rounds):
        ours = run([a.engine, a.checkpoint] + [x for c in common for x in c.split("=")], PASSIVE)
        theirs = run(shlex.split(a.torch) + [a.torch_script, "measure"] + common, PASSIVE)
        rounds.append((ours, theirs))
        print(f"round {i + 1}: step {ours['step_s']:.3f} s, torch {theirs['step_s']:.3f} s; decode "
              f"{ours['decode_s']:.3f} s, torch {theirs['decode_s']:.3f} s", file=sys.stderr)
    result = {"size": a.size, "rounds": a.rounds, "growth_over_predicted": rounds[-1][0]["growth_over_predicted"]}
    for what in ("step", "decode"):
        result[what] = {
            "engine_s": statistics.median(r[0][f"{what}_s"] for r in rounds),
            "torch_s": statistics.median(r[1][f"{what}_s"] for r in rounds),
            "ratio": round(statistics.median(r[0][f"{what}_s"] / r[1][f"{what}_s"] for r in rounds), 3),
            "ratio_of_best": round(min(r[0][f"{what}_best_s"] for r in rounds) /
                                   min(r[1][f"{what}_best_s"] for r in rounds), 3),
            "ratio_of_cpu": round(min(r[0][f"{what}_cpu_s"] for r in rounds) /
                                  min(r[1][f"{what}_cpu_s"] for r in rounds), 3)}
    print(json.dumps(result, indent=1))


main()
