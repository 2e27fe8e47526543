#!/usr/bin/env python3
"""Text and pictures on one machine: what each costs the other, and the starter models' own speed.

usage: tests/bench/together.py [--bin build/bin] [--rounds 7]

Starts mysti_server with the starter models and takes turns: a text alone, then texts while pictures are drawn
one after the other. Prints the medians over all rounds and their ratios:
  first token (ms) and tokens per second, alone and while drawing
  seconds per picture of the starter painter (128x128, 20 steps), alone and while text runs
Nothing is asserted; the numbers in docs/bench.md come from here.
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
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, folder):
        self.port = free_port()
        self.home = tempfile.TemporaryDirectory(prefix="mysti-bench-")
        self.process = subprocess.Popen(
            [pathlib.Path(folder) / "mysti_server", "--listen-port", str(self.port), "--sd-port", "0",
             "--llm-port", "0", "--home", self.home.name], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        end = time.time() + 60
        while True:
            try:
                workers = self.get("/health")["workers"]
                if all(w["state"] == "ready" and w["model"] for w in workers.values()):
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

    def picture(self, seed):
        """Seconds for one picture."""
        began = time.perf_counter()
        answer = self.post("/v1/images/generations",
                           {"prompt": "a red circle on a blue background", "seed": seed, "steps": 20})
        body = json.loads(answer.read())
        assert answer.status == 200, body
        assert base64.b64decode(body["data"][0]["b64_json"])[:4] == b"\x89PNG"
        return time.perf_counter() - began

    def text(self, seed):
        """(ms to the first token, tokens per second after it) of one answer that cannot end early."""
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
        return (times[0] - began) * 1000, (len(times) - 1) / (times[-1] - times[0])

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "build/bin")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    server = Server(arguments.bin)
    alone, busy, pictures_alone, pictures_busy = [], [], [], []
    try:
        server.text(0)
        server.picture(0)
        for r in range(1, arguments.rounds + 1):
            alone.append(server.text(r))
            pictures_alone.append(server.picture(r))

            done = threading.Event()

            def draw():
                while not done.is_set():
                    pictures_busy.append(server.picture(r))

            painter = threading.Thread(target=draw)
            painter.start()
            time.sleep(0.2)
            for k in range(3):
                busy.append(server.text(1000 * r + k))
            done.set()
            painter.join()
    finally:
        server.stop()

    def row(name, a, b, unit):
        a, b = statistics.median(a), statistics.median(b)
        print(f"{name:22} alone {a:9.2f} {unit:5} together {b:9.2f} {unit:5} ratio {b / a:5.2f}")

    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds, medians")
    row("first token", [x[0] for x in alone], [x[0] for x in busy], "ms")
    row("text speed", [x[1] for x in alone], [x[1] for x in busy], "tok/s")
    row("starter picture", pictures_alone, pictures_busy, "s")


if __name__ == "__main__":
    main()
