"""The writer's dictionary: nouns by kind, adjectives, actions, places, times and made-up words.

A noun's kind decides where it may stand and what it may do (grammar.py).  The words in UNSEEN are
never used for training: evaluate.py measures with them whether a subject that the writer has never
met is kept.  invent() makes words that nobody has met: syllables, compounds, names, codes and
words in other scripts, so that the writer learns to copy tokens and not only to know them.
"""

NOUNS = {
    "animal": """fox wolf bear cat dog horse deer rabbit hare owl eagle crow raven sparrow robin swan duck
        goose hen rooster sheep goat cow pig donkey pony lion tiger leopard elephant giraffe zebra monkey
        panda koala kangaroo squirrel hedgehog mouse rat badger otter beaver frog toad lizard snake turtle
        tortoise snail bee butterfly moth dragonfly beetle ladybird spider ant parrot penguin pigeon stork
        heron peacock camel llama bull ox lamb kitten puppy foal cub bat hamster flamingo crane falcon hawk
        lynx moose bison boar stag seagull magpie cricket bird kingfisher woodpecker buffalo gorilla""",
    "swimmer": """fish whale dolphin shark octopus jellyfish seahorse crab lobster starfish salmon trout
        goldfish squid stingray eel clownfish turtle carp pufferfish submarine diver mermaid""",
    "person": """child girl boy woman man dancer painter sailor fisherman farmer knight king queen wizard
        witch gardener baker traveller shepherd musician violinist pianist astronaut pirate monk nurse
        teacher student poet clown juggler hunter soldier prince princess captain robot ghost giant dwarf
        elf fairy angel scarecrow snowman grandmother grandfather cyclist runner swimmer climber chef
        singer drummer magician explorer inventor merchant guard stranger""",
    "creature": """dragon unicorn griffin phoenix monster troll goblin ogre sphinx golem spirit yeti
        centaur dinosaur mammoth serpent werewolf gnome imp demon""",
    "boat": """boat ship sailboat canoe kayak raft rowboat ferry yacht barge steamer fishing-boat galleon
        schooner gondola lifeboat tugboat""",
    "vehicle": """car bus truck train tram bicycle motorcycle tractor wagon cart carriage taxi van scooter
        locomotive sledge caravan jeep lorry bike""",
    "flyer": """balloon airship aeroplane helicopter kite glider rocket spaceship biplane plane jet
        hot-air-balloon lantern paper-plane cloud""",
    "building": """house cottage castle tower mill windmill church temple barn hut cabin palace bridge
        farmhouse shop bakery library school station factory fortress ruin
        chapel monastery inn tent igloo skyscraper tree-house gate wall villa mansion pagoda town village
        city harbour""",
    "plant": """tree oak pine birch willow maple palm rose tulip sunflower daisy poppy lily orchid cactus
        mushroom fern vine bush flower dandelion lavender ivy bonsai apple-tree cherry-tree violet iris""",
    "food": """apple pear orange lemon cherry plum peach strawberry melon grape loaf cake pie cheese egg
        pancake cupcake sandwich pumpkin tomato carrot onion pepper cookie croissant pizza bowl-of-soup
        cup-of-tea coffee banana pineapple mango walnut biscuit muffin""",
    "thing": """lamp candle book chair table clock key bottle vase teapot cup mug kettle umbrella hat shoe
        boot guitar violin piano drum trumpet bell box chest mirror window door ladder broom basket bucket
        coin crown ring sword shield map compass telescope globe camera radio telephone typewriter pen
        pencil brush letter envelope doll toy puzzle ball feather shell stone pebble bone mask glove scarf
        bag suitcase wheel anchor rope hammer saw axe knife spoon fork plate jar lantern hourglass
        chessboard gramophone notebook button needle pillow blanket rug bench fountain statue""",
    "space": """planet moon comet asteroid satellite star galaxy rocket spaceship astronaut telescope
        space-station""",
    "scene": """mountain valley river lake waterfall beach island volcano glacier canyon cave forest meadow
        desert hill field garden orchard vineyard swamp coast cliff road path street market harbour bay
        pond stream park sunset sunrise night-sky""",
}

MASS = "snow water fire gold silver glass stone wood paper ice smoke light sand clay wool silk iron moss"

SHAPE_WORDS = {
    "circle": "circle disc dot ball",
    "square": "square box",
    "triangle": "triangle",
    "star": "star",
    "heart": "heart",
}
ABSTRACT = """love freedom music winter summer spring autumn time hope silence peace joy memory childhood loneliness happiness
    nature chaos speed gravity friendship adventure home"""

COLOURS = "red orange yellow green blue purple pink black white gray brown"

# Never in the training data; evaluate.py's unseen nouns.
UNSEEN = """pangolin okapi axolotl capybara meerkat wombat platypus narwhal iguana chameleon salamander
    armadillo walrus pelican toucan ostrich vulture albatross hyena jackal mongoose porcupine gazelle antelope
    ibex yak alpaca lemur sloth tapir weasel ferret stoat chipmunk gecko cobra scorpion mantis wasp
    cathedral observatory aqueduct obelisk pyramid mosque stadium greenhouse warehouse carousel
    ferris-wheel zeppelin hovercraft ambulance tricycle unicycle skateboard snowmobile bulldozer gondolier
    accordion harmonica banjo cello saxophone xylophone bagpipe tambourine microscope abacus sextant
    barometer metronome kaleidoscope chandelier corkscrew thimble spindle anvil bellows pulley wheelbarrow
    pomegranate papaya artichoke asparagus broccoli cauliflower radish turnip zucchini avocado blueberry
    raspberry doughnut pretzel lasagna burrito sushi dumpling magnolia hydrangea chrysanthemum thistle
    marigold jasmine baobab sequoia cypress acacia eucalyptus juggernaut minotaur kraken basilisk banshee
    leprechaun gargoyle cyclops samurai ninja gladiator viking cowboy ballerina acrobat blacksmith beekeeper
    plumber surgeon librarian archaeologist detective locksmith cobbler puppeteer toboggan catamaran trawler
    hammock trampoline chimney staircase balcony bookcase wardrobe toaster blender backpack bracelet
    necklace earring pendant tiara sombrero kimono moccasin"""

ADJECTIVES = {
    "any": """small little tiny large big huge old young lonely quiet strange curious bright pale dark tall
        striped spotted golden silver blue red green yellow white black purple orange pink gray brown beautiful
        lovely sleepy happy sad brave gentle wild proud shy magic magical mysterious forgotten ancient famous
        enormous giant mighty elegant simple round colorful glowing shining dusty wooden broken tired clever
        dreamy friendly fierce lost noble graceful wandering single rare delicate cozy""",
    "made": """rusty wooden stone brass copper iron glass paper painted crooked abandoned ruined carved shiny
        wrecked handmade antique modern polished cracked dusty tin porcelain mechanical""",
}
NUMBERS = "two three four five six seven several many some"

ACTIONS = {
    "animal": """running|sleeping|jumping|playing|looking up|drinking water|walking slowly|hiding|resting|
        chasing leaves|sitting|dreaming|waiting|standing still|eating|singing|hunting|yawning|stretching|
        leaping over a stream|curled up|looking at the moon|watching the rain""",
    "person": """dancing|reading a book|walking|waiting|playing the flute|riding a horse|holding a lamp|
        looking at the stars|running|singing|painting|fishing|cooking|sleeping|carrying a basket|
        playing chess|drinking tea|climbing|writing a letter|juggling|feeding birds|holding an umbrella|
        sitting on a bench|flying a kite|waving|laughing""",
    "boat": """sailing|drifting|leaving the harbour|coming home|fighting the waves|at anchor|sinking|
        crossing the bay""",
    "vehicle": """racing|waiting|climbing a hill|parked|crossing a bridge|driving away|covered in dust|
        stuck in the mud|turning a corner""",
    "flyer": """flying|floating|rising|landing|drifting|crossing the sky|above the clouds""",
    "swimmer": """swimming|diving|gliding|resting on the sand|circling|leaping out of the water|
        hiding in the weeds""",
    "made": """glowing|covered in snow|covered in ivy|in ruins|falling apart|on fire|waiting|shining|
        floating in the air|standing alone|full of light|wrapped in paper""",
}

# Phrases a user adds, each with the setting or time it implies.
PLACES = {
    "sea": """on the sea|at sea|on the ocean|on the water|in the harbour|on the waves|by the sea|on the beach|
        on a beach|near the shore|on an island|at the coast|in a bay""",
    "lake": "on a lake|by the lake|on the river|near a pond|by a river|beside a waterfall|in a pond",
    "forest": """in the forest|in a forest|in the woods|under a tree|among the trees|in a dark forest|
        in a pine forest|between tall trees|in the jungle|deep in the woods""",
    "field": """in a field|in a meadow|on a hill|on a green hill|in the grass|in a field of flowers|
        in the countryside|on a farm|in tall grass|over the hills""",
    "mountains": "in the mountains|on a mountain|on top of a mountain|on a cliff|in a valley|near a volcano",
    "snow": "in the snow|on the ice|in winter|in a snowy field|on a frozen lake|in a blizzard",
    "desert": "in the desert|on a dune|in the sand|in a dry canyon",
    "city": """in the city|in a city|on the street|in a town|on a rooftop|in a narrow street|at the station|
        in the market|in New York|in Paris|in Tokyo|on a bridge|in a cafe|in a village""",
    "room": """in a room|on a table|in the kitchen|by the window|on a chair|in a library|in an attic|
        on a shelf|beside the fire|on a desk|in a museum|in a castle|in a cave""",
    "garden": "in a garden|in the park|in an orchard|under the cherry blossoms|beside a fountain",
    "space": "in space|on the moon|on Mars|among the stars|in orbit",
    "under": "under the sea|underwater|in an aquarium|on the sea floor|deep under water",
    "sky": "in the sky|above the clouds|over the city|in the clouds|high above the sea",
}
TIMES = {
    "night": "at night|in the moonlight|under the stars|at midnight|in the dark|under a full moon",
    "dawn": "at dawn|at sunrise|early in the morning|in the morning|in the morning light",
    "day": "at noon|on a sunny day|in the sun|in summer|in bright daylight|in spring",
    "sunset": "at sunset|at dusk|in the evening|in the evening light|at twilight|at golden hour",
    "fog": "in the fog|in the mist|on a foggy morning",
    "rain": "in the rain|on a rainy day|after the rain|in a storm|in a thunderstorm",
    "autumn": "in autumn|among falling leaves|in the fall",
}


def split_list(text):
    """Words or, when the text has bars, phrases."""
    parts = text.split("|") if "|" in text else text.split()
    return [" ".join(p.split()).replace("-", "-") for p in parts]


NOUN_LISTS = {k: [w.replace("-", " ") if k != "person" else w for w in split_list(v)] for k, v in NOUNS.items()}
UNSEEN_LIST = [w.replace("-", " ") for w in UNSEEN.split()]
KNOWN = {w: k for k, ws in NOUN_LISTS.items() for w in ws}

ONSETS = """b c d f g h j k l m n p r s t v w x y z bl br ch cl cr dr fl fr gl gr kl kr pl pr qu sc sh sk sl
    sm sn sp st str sw th thr tr tw wh wr zh ph gn kn sch dw vr""".split()
VOWELS = "a e i o u a e i o u a e i o ai au ea ee ei ia ie io oa oo ou ue y ae eu".split()
CODAS = """b ck d f g l ll m n p r s t x z ch ld lt mp nd ng nk nt rd rk rm rn rt sh sk sp ss st th ft lk mb
    ns pt rl rch tch ff zz gh""".split()
ENDINGS = """er or ling le y in ar on et oo um us ia ix ot ock ard een ine ope ule ette ish ow el en ibou ant
    ula ito ano ora ette ster wing horn back beak tail fish bird wood stone lamp ship house""".split()
SCRIPTS = [
    "абвгдежзиклмнопрстуфхцчшыэюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "áàâäãåæçéèêëíìîïñóòôöøœúùûüýßšžčřěłńśżđőű",
    "猫犬鳥魚花木山川海月星火水雨雪竜馬車船家本人王女子空森林石金銀",
    "ねこいぬとりさかなはなやまかわうみつきほしあめゆき",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "กขคงจชดตนบปพมยรลวสหอ",
    "🦊🐳🌙⭐🔥🌊🍎🎈🏠🚀🐢🌵🎻🦉🍄",
    "가나다라마바사아자차카타파하고노도로모보소오",
]


def syllables(rng, count):
    """A pronounceable word of so many syllables."""
    word = ""
    for i in range(count):
        if i == 0 and rng.random() < 0.2:
            word += rng.choice(VOWELS)
        else:
            word += rng.choice(ONSETS) + rng.choice(VOWELS)
        if rng.random() < 0.4:
            word += rng.choice(CODAS)
    return word


# The tokenizer's pieces, once there is one (train.py): a piece that only ever stood in the same few words of
# the prose would never be copied, and the writer would stumble over it in a word it does not know.
PIECES = {"first": [], "later": []}


def from_pieces(rng):
    return rng.choice(PIECES["first"]) + "".join(rng.choice(PIECES["later"]) for _ in range(rng.choice((1, 1, 2, 2, 3))))


def invent(rng):
    """A word that no list knows; lower case mostly, so that it can stand in a sentence."""
    if PIECES["first"] and rng.random() < 0.55:
        return from_pieces(rng)
    kind = rng.random()
    if kind < 0.42:
        return syllables(rng, rng.choice((1, 2, 2, 2, 3, 3, 4)))
    if kind < 0.62:
        return syllables(rng, rng.choice((1, 1, 2))) + rng.choice(ENDINGS)
    if kind < 0.72:
        a, b = (rng.choice(NOUN_LISTS[rng.choice(ALL_KINDS)]).replace(" ", "") for _ in "ab")
        cut = rng.random()
        if cut < 0.4:
            return a[: rng.randint(2, len(a))] + b[rng.randint(0, len(b) - 2) :]
        return a + b if cut < 0.8 else a + "-" + b
    if kind < 0.77:
        return syllables(rng, 1) + "-" + syllables(rng, rng.choice((1, 2)))
    if kind < 0.82:
        return syllables(rng, rng.choice((1, 2))).capitalize()
    if kind < 0.88:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))
    if kind < 0.91:
        code = "".join(rng.choice("ABCDEFGHKLMNPRSTXZ") for _ in range(rng.randint(1, 3)))
        return code + rng.choice(("-", "", " ")) + str(rng.randint(1, 9999))
    if kind < 0.95:
        word, extra = list(syllables(rng, rng.choice((2, 3)))), SCRIPTS[2]
        for _ in range(rng.randint(1, 2)):
            word[rng.randrange(len(word))] = rng.choice(extra)
        return "".join(word)
    script = rng.choice(SCRIPTS)
    return "".join(rng.choice(script) for _ in range(rng.randint(1, 5)))


ALL_KINDS = [k for k in NOUN_LISTS if k not in ("scene", "space")]


def plural(word):
    """English plural, good enough for the lists above."""
    irregular = {
        "child": "children", "man": "men", "woman": "women", "mouse": "mice", "goose": "geese",
        "sheep": "sheep", "deer": "deer", "fish": "fish", "ox": "oxen", "wolf": "wolves", "leaf": "leaves",
        "knife": "knives", "fisherman": "fishermen", "snowman": "snowmen", "loaf": "loaves", "elf": "elves",
        "moose": "moose", "bison": "bison", "squid": "squid", "salmon": "salmon", "trout": "trout",
        "bowl of soup": "bowls of soup", "cup of tea": "cups of tea", "goldfish": "goldfish",
    }
    if word in irregular:
        return irregular[word]
    if word.endswith(("s", "x", "ch", "sh", "z")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def article(phrase):
    return "an" if phrase[:1].lower() in tuple("aeiou") else "a"
