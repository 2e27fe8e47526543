#!/usr/bin/env python3
"""What it costs a conversation that its text model was set aside for a picture.

usage: tests/bench/parking.py [--bin build/bin] [--rounds 5] [--tokens 3000] [--llm-model FILE] [--mib 256]
                              [--by park|memory] [-- OPTION...]

A conversation of about --tokens tokens is continued three times in each round: directly (never parked), after the model
was parked and a picture was drawn, and after the model was unloaded and loaded again, which keeps nothing. The model is parked
by request, or with --by memory because the picture needs its room (what follows -- must make memory that tight). That
the text worker's process was another one afterwards is checked.
Prints medians: how many of the tokens were read again beyond the new ones, the time for reading them, and the
whole wait for the first token, with the start of the process in it. Wanted: at most 1 % read again, at most 1.5 times
the reading time of never having been parked.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from together import ROOT, Server

HERE = pathlib.Path(__file__).resolve().parent
WORDS = "a boat at night with stars over the calm sea and a red house near the trees on a hill in the morning light ".split()


def words(count, start):
    return " ".join(WORDS[(start + i * 7) % len(WORDS)] for i in range(count))


class Conversation:
    """Grows by fixed words instead of the model's own, so that what is new is known exactly."""

    def __init__(self, server, tokens):
        self.server = server
        self.text = words(tokens * 3 // 4, 1)
        self.turns = 0
        self.say()

    def say(self):
        """Continues it; {again, total, read_ms, wait_ms}."""
        self.turns += 1
        before = self.text
        self.text += f" {words(12, self.turns)}"
        began = time.perf_counter()
        answer = self.server.post("/v1/completions", {"prompt": self.text, "max_tokens": 1, "stream": True,
                                                      "cache_prompt": True, "timings_per_token": True})
        assert answer.status == 200, answer.read()
        first, timings = None, None
        for line in answer:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter()
                event = json.loads(line[6:])
                if "error" in event:
                    raise SystemExit(f"the text worker says: {event['error']['message']}")
                timings = event.get("timings") or timings
        total = self.count(self.text)
        new = total - self.count(before)
        return {"again": max(0, timings["prompt_n"] - new), "total": total, "read_ms": timings["prompt_ms"],
                "wait_ms": (first - began) * 1000}

    def count(self, text):
        return len(json.loads(self.server.post("/v1/tokenize", {"content": text}).read())["tokens"])


def pid(server):
    return server.get("/v1/workers/llm")["pid"]


def load_again(server):
    model = server.get("/v1/workers/llm")["model"]
    for path, body in (("/v1/llm/unload", {}), ("/v1/llm/load", {"model": model})):
        answer = server.post(path, body)
        assert answer.status == 200, answer.read()


def after_a_picture(server, conversation, arguments):
    """The next turn after a picture for which the model went."""
    before = pid(server)
    if arguments.by == "park":
        answer = server.post("/v1/workers/llm/park", {})
        assert answer.status == 200, answer.read()
    server.picture(1, arguments)
    turn = conversation.say()
    if pid(server) == before:
        raise SystemExit("the text model was not set aside for the picture: make memory tighter with options after --")
    return turn


def main():
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    own, options = sys.argv[1:cut], sys.argv[cut + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "build/bin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--llm-model")
    parser.add_argument("--mib", type=int, default=256, help="size of a random model when none is given")
    parser.add_argument("--by", choices=["park", "memory"], default="park")
    arguments = parser.parse_args(own)
    arguments.steps, arguments.size = 20, 0
    rows = {"never parked": [], "parked for a picture": [], "loaded again": []}
    with tempfile.TemporaryDirectory(prefix="mysti-bench-") as folder:
        model = arguments.llm_model
        if not model:
            model = str(pathlib.Path(folder) / "random.gguf")
            subprocess.run([sys.executable, HERE / "random_text_model.py", model, "--mib", str(arguments.mib)],
                           check=True, stdout=subprocess.DEVNULL)
        server = Server(arguments.bin, "text-first", ["--llm-model", model, "--model-dir", str(pathlib.Path(model).parent), "--llm-slots", "1", *options])
        try:
            conversation = Conversation(server, arguments.tokens)
            for _ in range(arguments.rounds):
                rows["never parked"].append(conversation.say())
                rows["parked for a picture"].append(after_a_picture(server, conversation, arguments))
                conversation.say()
                load_again(server)
                rows["loaded again"].append(conversation.say())
        finally:
            server.stop()

    def middle(list_, key):
        return statistics.median(turn[key] for turn in list_)

    base = middle(rows["never parked"], "read_ms")
    print(f"{arguments.rounds} rounds, a conversation of {middle(rows['never parked'], 'total'):.0f} tokens, medians\n")
    print("| the next turn | tokens read again | reading, ms | ratio | whole wait, ms |")
    print("|---|---|---|---|---|")
    for name, turns in rows.items():
        again = middle(turns, "again") / middle(turns, "total") * 100
        read = middle(turns, "read_ms")
        print(f"| {name} | {again:.1f} % | {read:.0f} | {read / base:.2f} | {middle(turns, 'wait_ms'):.0f} |")


if __name__ == "__main__":
    main()
