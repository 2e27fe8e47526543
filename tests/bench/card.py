#!/usr/bin/env python3
"""Text models on a graphics card: what was foreseen there, and what the driver says the process has; and the ladder on a card
that is nearly full.

usage: tests/bench/card.py [--bin build/bin] [--mib 2048] [--folder F] [--fill] [-- OPTION...]

Needs a card that llama-server can use (its Vulkan or CUDA back end, and the driver) and a driver that says what a process has.
Loads a random text model with all of its layers on the card, with half of them, with a long context and with several slots, each
twice: the second time the prediction has learned from the first. With --fill, PyTorch takes the card but for the room of one
model and a half; a second model is loaded, which makes the first one give way in part, and unloaded again.
Prints a table and the moves. Ends with 1 when there is no such card.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import together

HERE = pathlib.Path(__file__).resolve().parent
MIB = 2**20
WAYS = [{"gpu_layers": -1, "context": 2048, "slots": 1}, {"gpu_layers": -1, "context": 16384, "slots": 1},
        {"gpu_layers": -1, "context": 4096, "slots": 4}, {"gpu_layers": 0.5, "context": 2048, "slots": 1}]
FILLER = """
import sys, torch
free, total = torch.cuda.mem_get_info()
kept = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
print("filled", flush=True)
sys.stdin.read()
"""


class Card:
    def __init__(self, server):
        self.server = server

    def load(self, model, **options):
        answer = self.server.post("/v1/llm/load", {"model": model, **options})
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{model} was not loaded: {answer.status} {body.decode()[:400]}")

    def unload(self, model):
        self.server.post("/v1/llm/unload", {"model": model}).read()

    def chat(self, model):
        answer = self.server.post("/v1/chat/completions", {"model": model, "max_tokens": 64, "ignore_eos": True,
                                                           "messages": [{"role": "user", "content": "a boat at night"}]})
        body = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{model} does not answer: {answer.status} {body}")
        return body["timings"]["predicted_per_second"]

    def resident(self, model):
        return next(r for r in self.server.get("/v1/memory")["residents"] if r["model"] == model)


def foreseen(r):
    return r["predicted"]["compute"] + r["layers"]["bytes"] * r["layers"]["present"]


def measure(card, model, blocks):
    print("| layers | context | slots | | foreseen | taken | difference | tokens per second |")
    print("|---|---|---|---|---|---|---|---|")
    for way in WAYS:
        options = {**way, "gpu_layers": blocks // 2 if way["gpu_layers"] == 0.5 else way["gpu_layers"]}
        for time_ in ("first", "learned"):
            card.load(model, **options)
            speed = card.chat(model)
            time.sleep(0.5)  # what it has is noted when it is idle
            r = card.resident(model)
            if not r["layers"] or not r["measured"]["cards"]:
                raise SystemExit(f"{model} does not lie on a card, or nobody says what it has there: {json.dumps(r)}")
            taken = r["measured"]["cards"]
            print(f"| {r['layers']['present']} | {options['context']} | {options['slots']} | {time_} | {foreseen(r) / MIB:.0f} MiB | "
                  f"{taken / MIB:.0f} MiB | {foreseen(r) / taken - 1:+.1%} | {speed:.0f} |", flush=True)
            card.unload(model)


def fill(card, models, taken):
    filler = subprocess.Popen([sys.executable, "-c", FILLER, str(int(1.5 * taken))], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    filler.stdout.readline()
    known = len(card.server.get("/v1/memory")["moves"])
    card.load(models[0], gpu_layers=-1, context=16384, slots=1)
    card.chat(models[0])
    time.sleep(0.5)
    card.load(models[1], gpu_layers=-1, context=2048, slots=1)
    for model in models:
        print(f"{model}: {card.chat(model):.0f} tokens per second, {json.dumps(card.resident(model))}")
    card.unload(models[1])
    time.sleep(8)  # --memory-quiet and a start
    r = card.resident(models[0])
    print(f"afterwards {models[0]} has {r['layers']['present']} of {r['layers']['wished']} layers there, and "
          f"{r['context']['present']} of {r['context']['wished']} tokens")
    for move in card.server.get("/v1/memory")["moves"][known:]:
        print(f"  {move['move']}: {move['reason']}")
    filler.stdin.close()
    filler.wait(30)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=together.ROOT / "build/bin")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("options", nargs="*")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mysti-bench-") as temporary:
        folder = a.folder or pathlib.Path(temporary)
        names = [f"card-{x}-{a.mib}.gguf" for x in "ab"]
        for name in names[:2 if a.fill else 1]:
            if not (folder / name).exists():
                subprocess.run([sys.executable, HERE / "random_text_model.py", folder / name, "--mib", str(a.mib), "--context", "32768"],
                               check=True)
        server = together.Server(a.bin, "text-first", ["--model-dir", str(folder), "--llm-resident", "8", "--memory-quiet", "3", *a.options],
                                 kinds=["llm"])
        try:
            cards = [d for d in server.get("/v1/memory")["devices"] if d["usable"]]
            if not cards:
                print("no graphics card that llama-server can use, or none that says how much memory it has")
                return 1
            print(json.dumps(cards))
            card = Card(server)
            card.load(names[0], gpu_layers=-1, context=2048, slots=1)
            r = card.resident(names[0])
            if not r["layers"]:
                raise SystemExit(json.dumps(r))
            blocks = r["layers"]["wished"]
            card.unload(names[0])
            measure(card, names[0], blocks)
            if a.fill:
                fill(card, names, a.mib * MIB * 1.6)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
