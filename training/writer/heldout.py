"""Writes the held-out ideas: python3 heldout.py -> heldout.json (600) and heldout_small.json (40).

Half of them have a subject from words.UNSEEN (English nouns that no training sentence contains), a quarter a
made-up word from a seed that training does not use, a quarter known words in new combinations; a third each
comes bare, through the magic wand's prefix with a system message, or as another request.
"""

import json
import os
import random

from chat import REQUEST, WAND
from grammar import ACTION_LIST, PLACE_LIST, TIME_LIST, make_idea
from words import KNOWN, UNSEEN_LIST, article, invent, syllables

SEED = 777031
LOOKS = "small old red striped golden quiet huge blue tiny friendly rusty green lonely bright purple".split()


def written(rng, subject, living):
    """-> the idea a user would write around a subject."""
    text = subject if rng.random() < 0.2 else f"{article(subject)} {subject}"
    if rng.random() < 0.3:
        text += " " + rng.choice(ACTION_LIST["animal" if living else "made"])
    if rng.random() < 0.45:
        text += " " + rng.choice(PLACE_LIST[rng.choice(("sea", "forest", "field", "snow", "city", "room", "garden"))])
    if rng.random() < 0.3:
        text += " " + rng.choice(TIME_LIST[rng.choice(("night", "dawn", "sunset", "rain"))])
    return text


def one(rng, kind, n):
    if kind == "unseen":
        word = UNSEEN_LIST[n % len(UNSEEN_LIST)]
        subject = word if rng.random() < 0.5 else f"{rng.choice(LOOKS)} {word}"
        idea = written(rng, subject, n % len(UNSEEN_LIST) < 30)
    elif kind == "made up":
        word = syllables(rng, rng.choice((2, 3))) if rng.random() < 0.7 else invent(rng)
        subject = word if rng.random() < 0.5 else f"{rng.choice(LOOKS)} {word}"
        idea = written(rng, subject, rng.random() < 0.3)
    else:
        drawn = make_idea(rng)
        while not all(w in KNOWN or w.isalpha() for w in drawn["subject"].split()) or drawn["kind"] == "unknown":
            drawn = make_idea(rng)
        subject, idea = drawn["subject"], drawn["given"]
    route = rng.choice(("bare", "wand", "request"))
    row = {"kind": kind, "route": route, "subject": subject, "idea": idea}
    row["user"] = {"bare": idea, "wand": "Enhance this prompt: " + idea}.get(route) or rng.choice(REQUEST).replace("[x]", idea)
    if route == "wand":
        row["system"] = rng.choice(WAND)
    return row


def ideas(seed, count):
    rng = random.Random(seed)
    kinds = ("unseen", "made up", "unseen", "known")
    offset = rng.randrange(len(UNSEEN_LIST))
    return [one(rng, kinds[i % 4], offset + i // 2) for i in range(count)]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    for name, seed, count in (("heldout.json", SEED, 600), ("heldout_small.json", SEED + 1, 40)):
        with open(os.path.join(here, name), "w", encoding="utf-8") as f:
            json.dump(ideas(seed, count), f, ensure_ascii=False, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
