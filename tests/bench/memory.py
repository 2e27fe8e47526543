#!/usr/bin/env python3
"""Text models that do not fit together, and pictures, under a limit of memory, with the real engines.

usage: tests/bench/memory.py [--bin build/bin] [--limit 8G] [--mib 2048,3072,3584] [--jobs 60] [--folder F] [-- OPTION...]

Writes random text models of these sizes (in --folder they are kept and found again), starts mysti_server in a control group with
that limit (it needs to be allowed to make one; with --limit 0 there is none), and sends --jobs requests in a fixed random order by
two clients at once: chats that name one of the models, and pictures of 256 to 768 pixels with the starter painter.
Prints how many were answered, the moves that were made, how often the kernel killed for want of memory (wanted: never), and how far
the predictions were from what was measured: for models that were started the first time, and with what was learned
(wanted: 95 % of them within 5 %). Ends with 1 when something was killed or failed.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter

import together

HERE = pathlib.Path(__file__).resolve().parent
UNITS = {"M": 2**20, "G": 2**30}


class Group:
    """A control group of either generation below the one we are in."""

    def __init__(self, limit):
        lines = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
        unified = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
        if unified:
            self.path = pathlib.Path("/sys/fs/cgroup" + next(p for _, c, p in lines if not c))
        else:
            self.path = pathlib.Path("/sys/fs/cgroup/memory" + next(p for _, c, p in lines if c == "memory"))
        self.path = self.path / f"mysti-bench-{os.getpid()}"
        self.path.mkdir()
        (self.path / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit))
        self.counts = self.path / ("memory.events" if unified else "memory.oom_control")

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self):
        return sum(int(line.split()[1]) for line in self.counts.read_text().splitlines() if line.startswith("oom_kill "))

    def remove(self):
        self.path.rmdir()


def make_models(folder, sizes):
    for mib in sizes:
        out = folder / f"random-{mib}.gguf"
        if not out.exists():
            subprocess.run([sys.executable, HERE / "random_text_model.py", out, "--mib", str(mib)], check=True)


class Run:
    def __init__(self, server, jobs):
        self.server = server
        self.jobs = jobs
        self.lock = threading.Lock()
        self.failures, self.first, self.learned = [], {}, {}
        self.answered = Counter()

    def chat(self, model):
        answer = self.server.post("/v1/chat/completions", {"model": model, "max_tokens": 4, "ignore_eos": True,
                                                           "messages": [{"role": "user", "content": "a boat"}]})
        return answer.status, answer.read()

    def draw(self, size):
        answer = self.server.post("/v1/images/generations", {"prompt": "a red circle", "size": f"{size}x{size}",
                                                             "steps": 2, "seed": size})
        return answer.status, answer.read()

    def note_predictions(self):
        for r in self.server.get("/v1/memory")["residents"]:
            if r["type"] != "text" or r["state"] != "ready" or not r["measured"] or not r["predicted"]:
                continue
            took = r["measured"]["resident"] + r["measured"]["swapped"]
            kept = self.learned if r["predicted"]["learned"] else self.first
            key = (r["model"], r["predicted"]["total"])
            kept[key] = max(kept.get(key, 0), took)

    def work(self):
        while True:
            with self.lock:
                if not self.jobs:
                    return
                kind, what = self.jobs.pop()
            status, body = self.chat(what) if kind == "chat" else self.draw(what)
            with self.lock:
                self.answered[kind] += status == 200
                if status != 200:
                    self.failures.append(f"{kind} {what}: {status} {body[:300]}")
                self.note_predictions()


def errors(pairs):
    return [abs(predicted - took) / took for (_, predicted), took in pairs.items()]


def row(name, values):
    if not values:
        return f"{name}: none seen"
    worst = sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]
    return f"{name}: median {statistics.median(values):.1%}, 95 % of {len(values)} within {worst:.1%}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=together.ROOT / "build/bin")
    parser.add_argument("--limit", default="8G")
    parser.add_argument("--mib", default="2048,3072,3584")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("options", nargs="*")
    a = parser.parse_args()
    sizes = [int(m) for m in a.mib.split(",")]
    limit = int(a.limit[:-1]) * UNITS[a.limit[-1]] if a.limit[-1] in UNITS else int(a.limit)
    with tempfile.TemporaryDirectory(prefix="mysti-bench-") as temporary:
        folder = a.folder or pathlib.Path(temporary)
        make_models(folder, sizes)
        group = Group(limit) if limit else None
        start = subprocess.Popen
        if group:
            together.subprocess.Popen = lambda *args, **more: start(*args, **more, preexec_fn=group.enter)
        server = together.Server(a.bin, "text-first", ["--model-dir", str(folder), "--llm-resident", "8", "--llm-slots", "1", "--llm-context", "2048",
                                                       "--memory-quiet", "5", *a.options])
        together.subprocess.Popen = start
        order = random.Random(1)
        jobs = [("chat", f"random-{order.choice(sizes)}.gguf") if order.random() < 0.6 else
                ("draw", order.choice([256, 384, 512, 640, 768])) for _ in range(a.jobs)]
        run = Run(server, jobs)
        clients = [threading.Thread(target=run.work) for _ in range(2)]
        for c in clients:
            c.start()
        for c in clients:
            c.join()
        moves = Counter(m["move"] for m in server.get("/v1/memory")["moves"])
        restarts = sum(w["restarts"] for w in server.get("/v1/workers").values())
        server.stop()
        kills = group.kills() if group else 0
        if group:
            group.remove()
    print(f"limit {a.limit}, models of {a.mib} MiB and pictures: {run.answered['chat']} chats and {run.answered['draw']} "
          f"pictures answered, {len(run.failures)} failed")
    print(f"the last moves: {dict(moves)}; killed for want of memory: {kills}; workers lost: {restarts}")
    for (model, predicted), took in sorted((run.first | run.learned).items()):
        print(f"  {model}: {predicted / 2**20:.0f} MiB foreseen, {took / 2**20:.0f} taken")
    print(row("prediction, first start", errors(run.first)))
    print(row("prediction, learned", errors(run.learned)))
    print(*run.failures, sep="\n")
    return 1 if kills or run.failures or restarts else 0


if __name__ == "__main__":
    sys.exit(main())
