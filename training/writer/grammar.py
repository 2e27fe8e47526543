"""The writer's teacher: a seeded grammar that knows what a good paragraph for an idea is.

make_idea() draws an idea (subject, action, place, time, style; any of them may be missing) and
paragraph() answers it: an opening that holds the idea word for word, then light, surroundings,
composition and style, so that the night is not sunny and a whale does not sit on a shelf.  A
paragraph has 35 to 85 words.

Templates: {a|b|c} is a choice (nested ones inside first), %sits/sit% agrees with the subject's
number, [name] is a value of the idea.  Adding a template needs nothing else; adding a time or a
setting needs a row in every table that is keyed by it.
"""

import re

from phrases import (CLOSE, COMPOSE, DETAIL, LIGHT, OPEN_ANY, OPEN_DET, PALETTE, POSTURE, SETTING, SETTING_OF,
                     SHAPE_COLOUR, SHAPE_OPEN, SHAPE_REST, SHAPE_STYLE, STYLE, STYLE_ASKED, SURROUND)
from words import (ABSTRACT, ACTIONS, ADJECTIVES, COLOURS, KNOWN, MASS, NOUN_LISTS, NUMBERS, PLACES, SHAPE_WORDS, TIMES,
                   article, invent, plural, split_list)

CHOICE = re.compile(r"\{([^{}]*)\}")
AGREE = re.compile(r"%([^%/]*)/([^%]*)%")
SLOT = re.compile(r"\[(\w+)\]")
MAX_WORDS, MIN_WORDS = 85, 35

PLACE_LIST = {k: split_list(v) for k, v in PLACES.items()}
TIME_LIST = {k: split_list(v) for k, v in TIMES.items()}
ACTION_LIST = {k: split_list(v) for k, v in ACTIONS.items()}
ANY_ADJ, MADE_ADJ = split_list(ADJECTIVES["any"]), split_list(ADJECTIVES["made"])
COLOUR_LIST, NUMBER_LIST, MASS_LIST = COLOURS.split(), NUMBERS.split(), MASS.split()
PAINTED = "red orange yellow green blue purple white black".split()
LIVING = ("animal", "person", "creature", "swimmer")
ACTION_OF = {"animal": "animal", "person": "person", "creature": "animal", "boat": "boat", "vehicle": "vehicle",
             "flyer": "flyer", "swimmer": "swimmer", "building": "made", "thing": "made", "plant": "made",
             "space": "flyer", "unknown": "made"}
KIND_WEIGHTS = {"animal": 16, "person": 10, "creature": 4, "boat": 6, "vehicle": 6, "flyer": 4, "building": 9,
                "plant": 6, "food": 5, "thing": 11, "space": 3, "scene": 8, "swimmer": 5}


def fill(template, rng, values):
    """Expands one template."""
    plural_form = values["number"] == "p"
    while "{" in template:
        template = CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), template)
    template = AGREE.sub(lambda m: m.group(2 if plural_form else 1), template)
    return SLOT.sub(lambda m: values[m.group(1)], template)


def noun_phrase(rng, unseen=None):
    """-> dict with text (with article), bare, head, number, kind, det (may begin a sentence)."""
    if not unseen and rng.random() < 0.03:
        word = rng.choice(ABSTRACT.split() + MASS_LIST)
        return dict(text=word, bare=word, head=word, number="s", kind="idea", det="name")
    kind = rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
    word = rng.choice(NOUN_LISTS[kind])
    if unseen:
        kind, word = unseen
    made_up = rng.random() < 0.55 and not unseen
    if made_up:
        word, kind = invent(rng), "unknown"
    name = word[:1].isupper()
    adjectives = []
    if not name or rng.random() < 0.2:
        for _ in range(rng.choice((0, 0, 0, 1, 1, 1, 2))):
            roll = rng.random()
            if roll < 0.22 and kind != "person":
                adjectives.append(rng.choice(COLOUR_LIST))
            elif roll < 0.32:
                adjectives.append(invent(rng).lower())
            elif kind in ("building", "vehicle", "boat", "thing") and roll < 0.6:
                adjectives.append(rng.choice(MADE_ADJ))
            else:
                adjectives.append(rng.choice(ANY_ADJ))
    number = "p" if rng.random() < 0.14 and kind != "scene" and not name else "s"
    if number == "p":
        word = plural(word)
    elif made_up and word.endswith("s") and not word.endswith("ss"):
        number = "p"
    bare = " ".join(dict.fromkeys(adjectives + [word]))
    roll = rng.random()
    if name and roll < 0.85:
        text, det = bare, "name"
    elif number == "p":
        det = "yes" if roll < 0.55 else "no"
        text = f"{rng.choice(NUMBER_LIST)} {bare}" if det == "yes" else bare
    elif roll < 0.60:
        text, det = f"{article(bare)} {bare}", "yes"
    elif roll < 0.70:
        text, det = f"{rng.choice(('the', 'the', 'my', 'one', 'our', 'his', 'her', 'this'))} {bare}", "yes"
    else:
        text, det = bare, "no"
    return dict(text=text, bare=bare, head=word, number=number, kind=kind, det=det)


def relation(rng, first):
    """Adds a second thing: 'a fox with a red umbrella'."""
    second = noun_phrase(rng)
    if second["det"] == "no" and second["number"] == "s":
        second["text"] = f"{article(second['bare'])} {second['bare']}"
    if rng.random() < 0.12:
        second["text"] = rng.choice(MASS_LIST) if rng.random() < 0.6 else invent(rng)
        return f"{first} {rng.choice(('made of', 'full of', 'made from', 'covered in', 'of'))} {second['text']}"
    link = rng.choice("""with|with|and|and|next to|under|near|holding|riding|on top of|inside|behind|in front of|
        beside|over|carrying|looking at|wearing|chasing|made by|in|on|fighting|and""".split("|")).strip()
    return f"{first} {link} {second['text']}"


def make_idea(rng, unseen=None):
    """-> dict: the idea's text (without style), subject, style, setting, time, kind, number, ..."""
    if not unseen and rng.random() < 0.13:
        return shape_idea(rng)
    np = noun_phrase(rng, unseen)
    idea = dict(np, subject=np["bare"], setting=None, time=None, style=None, active=False, placed=False, pair=False,
                shape=False, sentence=False)
    text = np["text"]
    shape_of_idea = rng.random()
    if shape_of_idea < 0.16:
        text = relation(rng, text)
        idea["pair"] = True
        idea["number"] = np["number"]
        if " and " in text:
            idea["number"] = "p"
            idea["group"] = True
    elif shape_of_idea < 0.40 and np["kind"] in ACTION_OF:
        kind = ACTION_OF[np["kind"]] if np["kind"] != "unknown" else rng.choice(list(ACTION_LIST))
        action = rng.choice(ACTION_LIST[kind])
        idea["active"] = True
        if rng.random() < 0.12 and action.split()[0].endswith("ing") and np["det"] != "no":
            action = f"{'are' if np['number'] == 'p' else 'is'} {action}"
            idea["sentence"] = True
        text = f"{text} {action}"
    if rng.random() < 0.30 and np["kind"] != "scene":
        known = SETTING_OF.get(np["kind"])
        setting = rng.choice(known) if known and rng.random() < 0.85 else rng.choice(list(PLACE_LIST))
        if setting not in PLACE_LIST:
            setting = rng.choice(list(PLACE_LIST))
        idea["placed"] = True
        if rng.random() < 0.2:
            thing = noun_phrase(rng)["bare"]
            text += f" {rng.choice(('in', 'near', 'by', 'on', 'behind', 'under', 'inside'))} the {thing}"
        else:
            text += " " + rng.choice(PLACE_LIST[setting])
            idea["setting"] = setting
    if rng.random() < 0.24:
        time = rng.choice(list(TIME_LIST))
        if idea["setting"] not in ("space", "under"):
            text += " " + rng.choice(TIME_LIST[time])
            idea["time"] = time
    if rng.random() < 0.14:
        idea["style"] = rng.choice(list(STYLE_ASKED))
    if np["kind"] == "scene" and np["head"] in ("sunset", "sunrise", "night sky") and not idea["time"]:
        idea["time"] = {"sunset": "sunset", "sunrise": "dawn", "night sky": "night"}[np["head"]]
    idea["text"] = text
    finish(rng, idea)
    return idea


def shape_idea(rng):
    """An idea in the painter's own words: 'two small red stars on a blue background'."""
    shape = rng.choice(list(SHAPE_WORDS))
    word = rng.choice(SHAPE_WORDS[shape].split())
    colour = rng.choice(PAINTED)
    back = rng.choice([c for c in PAINTED if c != colour])
    count = rng.choice((1, 1, 1, 1, 2, 3))
    size = rng.choice(("", "", "", "small", "large", "big", "little", "tiny", "huge"))
    bare = " ".join(w for w in (size, colour if rng.random() < 0.85 else "", word) if w)
    if count > 1:
        bare = bare[: -len(word)] + plural(word)
        text = f"{rng.choice(('', 'two', 'three')) if rng.random() < .1 else ('two', 'three')[count - 2]} {bare}".strip()
        det = "yes" if text != bare else "no"
    else:
        det = "yes" if rng.random() < 0.65 else "no"
        text = f"{rng.choice((article(bare), article(bare), 'one', 'the'))} {bare}" if det == "yes" else bare
    idea = dict(text=text, bare=bare, subject=bare, head=plural(word) if count > 1 else word, kind="shape", det=det,
                number="p" if count > 1 else "s", setting=None, time=None, style=None, active=False, placed=False,
                pair=False, shape=True, sentence=False, back=back, has_back=False, has_spot=False,
                colour=colour if colour in bare else None)
    if rng.random() < 0.45:
        idea["text"] += " " + rng.choice((f"on a {back} background", f"on a {back} background", f"on {back}",
                                          f"against a {back} background", f"with a {back} background"))
        idea["has_back"] = True
    elif rng.random() < 0.2 and count == 1:
        idea["text"] += " " + rng.choice(("in the center", "on the left", "on the right", "at the top", "at the bottom"))
        idea["has_spot"] = True
    if rng.random() < 0.25:
        idea["style"] = rng.choice(("flat", "watercolor", "neon", "pixel art"))
    finish(rng, idea)
    return idea


def finish(rng, idea):
    """Chooses what the idea left open and fixes the words the templates use."""
    many = idea["number"] == "p"
    idea["given"] = idea["text"]
    if idea["det"] == "no" and not many:
        idea["text"] = f"{article(idea['text'])} {idea['text']}"
        idea["det"] = "yes"
    elif idea["det"] == "yes" and idea["text"].startswith("my "):
        idea["text"] = "your " + idea["text"][3:]
    head = idea["head"]
    if idea["det"] == "name":
        idea["the"] = head
    elif idea.get("group"):
        idea["the"] = rng.choice(("both of them", "the two", "the pair"))
    else:
        idea["the"] = f"the {head}"
    idea["The"] = idea["the"][:1].upper() + idea["the"][1:]
    idea["it"], idea["its"] = ("them", "their") if many else ("it", "its")
    idea["It"] = "They" if many else "It"
    idea["Idea"] = idea["text"][:1].upper() + idea["text"][1:]
    idea["idea"] = idea["text"]
    if idea["shape"]:
        return
    if not idea["setting"]:
        idea["where"] = rng.choice(SETTING_OF.get(idea["kind"], SETTING_OF["unknown"]))
        if idea["placed"] or (idea["where"] == "room" and idea["time"] in ("autumn", "fog", "rain")):
            idea["where"] = "plain"
    else:
        idea["where"] = idea["setting"]
    if not idea["time"]:
        options = ("dawn", "day", "day", "sunset", "night", "fog", "rain", "autumn", "night", "sunset")
        if idea["where"] in ("room", "plain"):
            options = ("lamp", "lamp", "day", "plain", "plain", "sunset", "night")
        if idea["where"] in ("space", "under"):
            options = (idea["where"],)
        if idea["where"] == "snow":
            options = ("dawn", "day", "sunset", "night", "fog")
        idea["when"] = rng.choice(options)
    else:
        idea["when"] = idea["time"]
    idea["c1"], idea["c2"], idea["c3"] = rng.sample(PALETTE[idea["when"]], 3)


def sentence(text):
    return text[:1].upper() + text[1:]


def style_sentence(rng, idea, values):
    style = idea["style"] or rng.choices(list(STYLE), [w for w, _ in STYLE.values()])[0]
    if style not in STYLE:
        return sentence(fill(rng.choice(CLOSE["asked"]), rng, dict(values, style=STYLE_ASKED[style])))
    return sentence(fill(rng.choice(STYLE[style][1]), rng, values))


def shape_paragraph(rng, idea):
    """A paragraph in the painter's own words: nothing else that could be painted by mistake."""
    values = dict(idea)
    values["ground"] = "" if idea["has_back"] else f" on a {idea['back']} background"
    parts = [sentence(fill(rng.choice(SHAPE_OPEN["det" if idea["det"] == "yes" else "any"]), rng, values))]
    topics = [k for k in SHAPE_REST if not (k == "spot" and (idea["has_spot"] or idea["number"] == "p"))]
    if idea["number"] != "p":
        topics.remove("row")
    if idea["has_back"] and rng.random() < 0.7:
        topics.remove("ground")
    rng.shuffle(topics)
    for topic in topics:
        parts.append(sentence(fill(rng.choice(SHAPE_REST[topic]), rng, values)))
    parts = parts[: rng.choice((4, 5, 5, 6))]
    if not idea["colour"]:
        colour = rng.choice([c for c in PAINTED if c != idea["back"]])
        parts.insert(1, sentence(fill(rng.choice(SHAPE_COLOUR), rng, dict(values, colour=colour))))
    style = idea["style"] or rng.choice(("flat", "flat", "watercolor", "neon", "pixel art"))
    parts.append(sentence(fill(rng.choice(SHAPE_STYLE[style]), rng, values)))
    return " ".join(parts)


def opening(rng, idea, values):
    if idea["sentence"]:
        return rng.choice((idea["Idea"] + ".", f"{idea['Idea']}{fill(rng.choice(SURROUND['tail']), rng, values)}.",
                           f"In {rng.choice(('this', 'the'))} picture {idea['idea']}."))
    values["posture"] = fill(rng.choice(POSTURE.get(idea["kind"], POSTURE["unknown"])), rng, values)
    values["place"] = "" if (idea["placed"] or idea["where"] == "plain" or idea["kind"] == "scene" or (
        idea["active"] and idea["kind"] not in LIVING)) else \
        " " + fill(rng.choice(SETTING[idea["where"]]), rng, values)
    if idea["active"]:
        values["posture"] = fill(rng.choice(POSTURE["active"]), rng, values)
    if idea["kind"] == "scene":
        values["posture"] = fill(rng.choice(POSTURE["scene"]), rng, values)
    values["at"] = values["place"].strip() or fill("{in the center|in the middle|at the heart} of the picture", rng, values)
    values["At"] = sentence(values["at"])
    pool = OPEN_DET + OPEN_ANY if idea["det"] == "yes" else OPEN_ANY
    return sentence(fill(rng.choice(pool), rng, values))


def paragraph(rng, idea):
    """The answer to an idea."""
    if idea["shape"]:
        return shape_paragraph(rng, idea)
    for _ in range(20):
        values = dict(idea)
        parts = [opening(rng, idea, values)]
        middle = [sentence(fill(rng.choice(LIGHT[idea["when"]]), rng, values))]
        if rng.random() < 0.75 and idea["where"] != "plain":
            middle.append(sentence(fill(rng.choice(SURROUND[idea["where"]]), rng, values)))
        elif rng.random() < 0.8:
            middle.append(sentence(fill(rng.choice(SURROUND["plain"]), rng, values)))
        if rng.random() < 0.5 and idea["kind"] in DETAIL and not idea.get("group"):
            middle.append(sentence(fill(rng.choice(DETAIL[idea["kind"]]), rng, values)))
        middle.append(sentence(fill(rng.choice(COMPOSE), rng, values)))
        if rng.random() < 0.35:
            rng.shuffle(middle)
        parts += middle + [style_sentence(rng, idea, values)]
        text = " ".join(" ".join(parts).split())
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            return text
        idea = dict(idea)
    return " ".join(" ".join((parts[0], parts[1], parts[-1])).split())
