#!/usr/bin/env python3
"""Text and pictures on one machine: what each costs the other under each policy of --sharing.

usage: tests/bench/together.py [--bin build/bin] [--rounds 7] [--seconds 2] [--steps 20] [--size 0]
                               [--llm-model FILE] [--policy P]... [-- OPTION...]

Starts one mysti_server for each policy with the starter models (or the model given) and lets them take turns: in each
round, each has a text alone, a picture alone, and then text without a pause beside pictures without a pause for
--seconds. Only what began and ended while both ran counts as together. What follows -- goes to every server.
Prints a table of medians over all rounds, ready for docs/bench.md: first token and tokens per second alone and
together, seconds per picture alone and together, and their ratios.
Nothing is asserted.
"""
import argparse
import base64
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


POLICIES = ["text-first", "equal", "image-first"]


class Server:
    def __init__(self, folder, policy, options, kinds=("sd", "llm")):
        self.policy = policy
        self.port = free_port()
        self.home = tempfile.TemporaryDirectory(prefix="mysti-bench-")
        self.process = subprocess.Popen(
            [pathlib.Path(folder) / "mysti_server", "--listen-port", str(self.port), "--sd-port", "0",
             "--llm-port", "0", "--home", self.home.name, "--sharing", policy, *options], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        end = time.time() + 60
        while True:
            try:
                workers = self.get("/health")["workers"]
                if all(workers[k]["state"] == "ready" and workers[k]["model"] for k in kinds):
                    return
            except OSError:
                pass
            if time.time() > end:
                raise SystemExit("the workers did not become ready within 60 s")
            time.sleep(0.1)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def get(self, path):
        c = self.connect()
        c.request("GET", path)
        return json.loads(c.getresponse().read())

    def post(self, path, body):
        c = self.connect()
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return c.getresponse()

    def picture(self, seed, arguments):
        """(start, end) of one picture, on the clock of time.perf_counter()."""
        size = {"size": f"{arguments.size}x{arguments.size}"} if arguments.size else {}
        began = time.perf_counter()
        answer = self.post("/v1/images/generations",
                           {"prompt": "a red circle on a blue background", "seed": seed, "steps": arguments.steps, **size})
        body = json.loads(answer.read())
        assert answer.status == 200, body
        assert base64.b64decode(body["data"][0]["b64_json"])[:4] == b"\x89PNG"
        return began, time.perf_counter()

    def text(self, seed):
        """(start, end, ms to the first token, tokens per second after it) of an answer that cannot end early."""
        began = time.perf_counter()
        answer = self.post("/v1/chat/completions",
                           {"stream": True, "max_tokens": 200, "ignore_eos": True, "seed": seed,
                            "cache_prompt": False,
                            "messages": [{"role": "user", "content": f"a boat at night, number {seed}"}]})
        assert answer.status == 200, answer.read()
        times = []
        for line in answer:
            if line.startswith(b"data: {") and b'"content":"' in line:
                times.append(time.perf_counter())
        return began, times[-1], (times[0] - began) * 1000, (len(times) - 1) / (times[-1] - times[0])

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Results:
    """One policy's figures: medians of what was measured alone and together."""

    def __init__(self):
        self.text_alone, self.text_together, self.picture_alone, self.picture_together = [], [], [], []

    def row(self):
        def middle(list_, key):
            return statistics.median(map(key, list_)) if list_ else float("nan")

        def length(run):
            return run[1] - run[0]

        pairs = [(self.text_alone, self.text_together, lambda r: r[2]),
                 (self.text_alone, self.text_together, lambda r: r[3]),
                 (self.picture_alone, self.picture_together, length)]
        cells = []
        for (alone, together, key), form in zip(pairs, ("{:.1f}", "{:.0f}", "{:.2f}")):
            a, b = middle(alone, key), middle(together, key)
            cells += [form.format(a), form.format(b), f"{b / a:.2f}"]
        return cells


def together(server, seed, arguments):
    """What ran while the other side ran, too: texts and pictures."""
    texts, pictures, failures = [], [], []
    end = time.perf_counter() + arguments.seconds

    def repeat(work, list_):
        try:
            while time.perf_counter() < end or not list_:
                list_.append(work())
        except Exception as e:  # a thread's own would be lost
            failures.append(e)

    threads = [threading.Thread(target=repeat, args=(lambda: server.text(seed + len(texts)), texts)),
               threading.Thread(target=repeat, args=(lambda: server.picture(seed, arguments), pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    begin = max(texts[0][0], pictures[0][0])
    last = min(texts[-1][1], pictures[-1][1])
    return ([t for t in texts if t[0] >= begin and t[1] <= last] or texts[:1],
            [p for p in pictures if p[0] >= begin and p[1] <= last] or pictures[:1])


def main():
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    own, options = sys.argv[1:cut], sys.argv[cut + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "build/bin")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=0, help="side of the picture; 0: the model's own")
    parser.add_argument("--llm-model")
    parser.add_argument("--policy", action="append", choices=POLICIES)
    arguments = parser.parse_args(own)
    if arguments.llm_model:
        options += ["--llm-model", arguments.llm_model]
    servers, results = [], {}
    try:
        for policy in arguments.policy or POLICIES:
            servers.append(Server(arguments.bin, policy, options))
            results[policy] = Results()
            servers[-1].text(0)
            servers[-1].picture(0, arguments)
        load = os.getloadavg()[0]
        for r in range(1, arguments.rounds + 1):
            for server in servers:
                got = results[server.policy]
                got.text_alone.append(server.text(r))
                got.picture_alone.append(server.picture(r, arguments))
                texts, pictures = together(server, 1000 * r, arguments)
                got.text_together += texts
                got.picture_together += pictures
    finally:
        for server in servers:
            server.stop()
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start, {arguments.rounds} rounds in turn, medians\n")
    print("| policy | first token alone, ms | together | ratio | tokens/s alone | together | ratio "
          "| picture alone, s | together | ratio |")
    print("|---|" + "---|" * 9)
    for policy, got in results.items():
        print(f"| {policy} | " + " | ".join(got.row()) + " |")


if __name__ == "__main__":
    main()
