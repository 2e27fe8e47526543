"""Measures a writer through any OpenAI-compatible server: python3 evaluate.py URL [options]

For every held-out idea it asks for one chat completion and checks that
  kept   the subject stands in the answer word for word (letter case and runs of spaces do not count),
  ended  the answer ended by itself (finish_reason "stop") within 90 words and is not empty.
Prints the shares, per kind of subject too, and exits 1 below the card's limits (95 % and 99 %).
The defaults of a request are the server's own unless --temperature is given.  Standard library only.
"""

import argparse
import json
import os
import re
import sys
import time
import urllib.request

LIMIT_KEPT, LIMIT_ENDED, MAX_WORDS = 0.95, 0.99, 90
HERE = os.path.dirname(os.path.abspath(__file__))


def squeeze(text):
    return " ".join(re.sub(r"[\"'.,!?;:()]", " ", text).lower().split())


def is_kept(subject, answer):
    return f" {squeeze(subject)} " in f" {squeeze(answer)} "


# What a user says about the time, and what the answer then should not say.  Reported, not part of the limits.
CLASH = [
    (r"\b(night|midnight|moonlight|full moon|under the stars)\b", r"\b(sunny|sunlight|daylight|sun|morning|evening light)\b"),
    (r"\b(dawn|sunrise|morning)\b", r"\b(moon|moonlight|night|evening|sunset|setting)\b"),
    (r"\b(sunset|dusk|evening|twilight|golden hour)\b", r"\b(moon|moonlight|night|morning|sunny|rising)\b"),
    (r"\b(rain|rainy|storm|thunderstorm)\b", r"\b(sunny|cloudless|moon|moonlight|starry)\b"),
]


def light_fits(idea, answer):
    """True or False for an idea that names a time of the list above, else None."""
    text, rest = idea.lower(), answer.lower().replace(idea.lower(), "")
    named = [bad for said, bad in CLASH if re.search(said, text)]
    return not any(re.search(bad, rest) for bad in named) if named else None


def is_ended(finish_reason, answer):
    return finish_reason == "stop" and 0 < len(answer.split()) <= MAX_WORDS


def ask(url, row, key=None, **options):
    """-> (finish_reason, answer)"""
    messages = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    messages.append({"role": "user", "content": row["user"]})
    body = json.dumps(dict({"messages": messages, "max_tokens": 300}, **options)).encode()
    head = {"Content-Type": "application/json"}
    if key:
        head["Authorization"] = "Bearer " + key
    request = urllib.request.Request(url.rstrip("/") + "/v1/chat/completions", body, head)
    with urllib.request.urlopen(request, timeout=120) as answer:
        choice = json.load(answer)["choices"][0]
    return choice["finish_reason"], choice["message"]["content"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("url", help="for example http://127.0.0.1:1234")
    p.add_argument("--ideas", default=os.path.join(HERE, "heldout.json"))
    p.add_argument("--temperature", type=float)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--key", default=os.environ.get("LLAMA_API_KEY"))
    p.add_argument("--show", type=int, default=0, help="print that many answers")
    p.add_argument("--misses", action="store_true", help="print every miss")
    a = p.parse_args()
    with open(a.ideas, encoding="utf-8") as f:
        rows = json.load(f)
    options = {} if a.temperature is None else {"temperature": a.temperature}
    kept, ended, words, light, began = {}, 0, [], [], time.time()
    for i, row in enumerate(rows):
        reason, text = ask(a.url, row, a.key, seed=a.seed + i, **options)
        good, done = is_kept(row["subject"], text), is_ended(reason, text)
        kept.setdefault(row["kind"], []).append(good)
        ended += done
        words.append(len(text.split()))
        light.append(light_fits(row["idea"], text))
        if i < a.show or (a.misses and not (good and done)):
            print(f"{'kept' if good else 'LOST'} {'ended' if done else reason} {row['user']!r}\n    {text}")
    every = [g for v in kept.values() for g in v]
    share_kept, share_ended = sum(every) / len(rows), ended / len(rows)
    print(f"{len(rows)} ideas, temperature {'default' if a.temperature is None else a.temperature}, "
          f"{time.time() - began:.0f} s, words {min(words)}-{max(words)}, mean {sum(words) / len(words):.0f}")
    for kind, v in kept.items():
        print(f"  subject kept, {kind}: {sum(v)}/{len(v)} = {sum(v) / len(v):.1%}")
    print(f"subject kept: {share_kept:.2%} (at least {LIMIT_KEPT:.0%})")
    print(f"ended by itself within {MAX_WORDS} words: {share_ended:.2%} (at least {LIMIT_ENDED:.0%})")
    named = [x for x in light if x is not None]
    if named:
        print(f"light fits the time named (no limit): {sum(named)}/{len(named)} = {sum(named) / len(named):.1%}")
    return 0 if share_kept >= LIMIT_KEPT and share_ended >= LIMIT_ENDED else 1


if __name__ == "__main__":
    sys.exit(main())
