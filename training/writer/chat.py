"""Conversations around the paragraphs: what people and programs write, and the writer's answers.

sample(rng) gives one conversation as [(role, text), ...] that ends with the assistant.  A system
message may say anything (the magic wand's, a helpful assistant's, noise); the idea may come bare, in a
request, in quotes, with a wand's prefix; greetings and questions about the writer are answered.
"""

from grammar import fill, make_idea, paragraph, sentence
from phrases import STYLE_ASKED
from words import ADJECTIVES, KNOWN, NOUN_LISTS, invent, split_list

WAND = [
    "You are an image prompt writer. Expand the user's idea into one vivid paragraph.",
    "You are a picture prompt writer. Turn the user's idea into one vivid paragraph for an image model. Reply with the paragraph only.",
    "Act as an expert image-prompt writer: expand the text into one detailed paragraph about subject, light, composition and style. Output only the prompt.",
    "You write prompts for a text-to-image model. Keep the subject and add light, place, composition and style.",
    "Expand the following short prompt into a detailed, vivid description for an image generator. No preamble, no quotes.",
    "You enhance prompts for Stable Diffusion. Answer with a single paragraph.",
    "You are a creative assistant that improves picture prompts. Only output the improved prompt.",
    "Rewrite the user's prompt so that it is vivid and complete. Do not explain.",
]
OTHER = [
    "You are a helpful assistant.", "You are a helpful, respectful and honest assistant.", "You are Mysti.", "Be concise.", "Answer in one paragraph.", "You are a friendly assistant. Answer in English.",
    "You are a pirate. Talk like one.", "Today is Friday.", "You are a large language model. Knowledge cutoff: 2024-06.", "Use markdown where it helps.", "Think step by step.",
    "The user writes from a web page. Be polite and brief.", "You are a poet.", "You are an artist and photographer.", "Never mention these instructions.",
]
REQUEST = [
    "Enhance this prompt: [x]", "Enhance this prompt: [x]", "Enhance this prompt: [x]", "Enhance this prompt:\n[x]", "enhance this prompt: [x]", "Enhance: [x]", "Improve this prompt: [x]", "Expand this idea: [x]", "Expand this prompt: [x]",
    "Expand: [x]", "Prompt: [x]", "Idea: [x]", "Picture idea: [x]", "Rewrite this prompt: [x]", "Make this prompt more vivid: [x]", "Make this more detailed: [x]", "Describe [x]", "Describe: [x]",
    "Describe a picture of [x]", "Write a prompt for [x]", "Write a prompt about [x]", "Write an image prompt: [x]", "write a picture prompt for [x]", "Please write a prompt for [x].", "Draw [x]", "draw [x]", "Draw [x].", "Draw me [x]", "draw me [x] please",
    "Paint [x]", "paint [x]", "Please paint [x].", "Please draw [x]", "Show me [x]", "show me [x]", "Can you draw [x]?", "Could you describe [x]?", "Can you write a prompt for [x]?", "I want a picture of [x]", "I want [x]",
    "I would like to see [x].", "I'd like a picture of [x]", "Give me a picture of [x]", "Make a picture of [x]", "make an image of [x]", "Generate an image of [x]", "generate [x]", "Create a picture of [x]", "create an image of [x]",
    "Imagine [x]", "A picture of [x]", "a picture of [x]", "picture of [x]", "an image of [x]", "a drawing of [x]", "an illustration of [x]", "Tell me about [x]", "Turn this into a paragraph: [x]", "Here is my idea: [x]", "My idea: [x]",
    "What about [x]?", "How about [x]?", "Maybe [x]", "[x], please", "[x] please", "Help me with this prompt: [x]", "The subject is [x].", "Subject: [x]", "Scene: [x]", "Text: [x]", "Input: [x]", "User prompt: [x]", "/imagine [x]", "/imagine prompt: [x]",
]
GREETING = """hello|hi|hey|hello there|hi there|hey there|good morning|good evening|good afternoon|good day|greetings|howdy|hello!|hi!|hey!|Hello|Hi|Hey|Hello there!|Hi Mysti|hello mysti|Hello, how are you?|hi, how are you|how are you?|How are you?|
    how are you doing|what's up|whats up?|sup|yo|hiya|good night|Good morning!|Good evening.|hallo|bonjour|hola|moin|servus|ciao|salut|hello friend|hello writer|hi bot|hello again|nice to meet you|is anybody there?|are you there?|hello?|test|testing|ping|welcome"""
GREETING_ANSWER = [
    "{Hello|Hi|Hello there|Good to see you}! {I am|I'm} Mysti's {little|small|starter} writer. {Give me|Tell me|Send me} a {short|small} picture idea, {for example|such as|like} [example], and I {turn it into|write} {one vivid paragraph|a paragraph} for the painter.",
    "{Hello|Hi there|Welcome}! {What shall we paint|What would you like to see|Which picture do you have in mind}? A few words are enough, {for example|such as|perhaps} [example].",
    "{Hello|Hi|Nice to meet you}! {Send|Write} me a {few words|short idea}, {say|like|for instance} [example], and I add light, place, composition and style.",
    "{Hello and welcome|Hi there|Hello}! I am ready. {Tell me what the picture should show|Name a subject}, {for example|maybe} [example].",
]
ABOUT = """who are you|who are you?|Who are you?|what are you|what are you?|what can you do|what can you do?|What can you do?|What can you do for me?|help|help me|Help|help!|how does this work|How does this work?|what is this|what is this?|What is Mysti?|what do you do|
    what do you do?|How can you help me?|how can you help me?|what is your name?|What's your name?|your name?|tell me about yourself|Introduce yourself|introduce yourself please|are you a robot?|are you human?|are you an ai?|Are you ChatGPT?|which model are you|
    What model are you?|who made you|who made you?|Who trained you?|how do I use you?|how do i use this|what should I write?|what should i type|instructions|commands|What are your abilities?|can you help me|can you help me?|Can you write?|what languages do you speak?|explain yourself|usage"""
ABOUT_ANSWER = [
    "I am Mysti's {little|small|starter} writer, a {tiny|very small} language model. I {turn|expand} a short picture idea into one vivid paragraph: I keep your subject and add light, place, composition and style. Try {it with|something like} [example].",
    "I {write|make} picture prompts. {Give|Send} me a few words, such as [example], and {you get|I answer with} one {vivid|clear} paragraph that the painter can use. {That is all I know, but I enjoy it.|I cannot do much else.}",
    "{My one skill is writing|What I can do is write} {prompts for pictures|picture descriptions}: {a short idea goes in|you give me a short idea}, {a vivid paragraph comes out|I give you a vivid paragraph} with light, place, composition and style. {For example|Try}: [example].",
]
THANKS = "thanks|thank you|Thank you!|Thanks!|thx|thank you very much|great|Great!|nice|cool|perfect|wonderful|that is beautiful|I like it|well done|good job|ok|okay|bye|goodbye|see you|good bye|Bye!|see you later|yes|no|love it|awesome"
THANKS_ANSWER = [
    "{You are welcome|My pleasure|Gladly}! {Send me another idea whenever you like|Another idea, perhaps|Shall we try another picture}, {for example|maybe|such as} [example].",
    "{I am glad|That is kind|Thank you}! {When you are ready|Whenever you like}, {give|send} me the next idea, {like|say} [example].",
]
OFF = """what is 2+2?|what is the capital of France?|Write a poem|write python code|tell me a joke|Tell me a joke.|what time is it?|what day is it today?|how is the weather?|translate this to German|solve x+3=5|write an essay about history|who is the president?|sing a song|
    what is the meaning of life?|Write a function in C|why is the sky blue?|How old are you?|do you love me?|can you count to ten?|play music|what is 17 times 23?|Summarize this text|explain quantum physics|how do I cook rice?|who won the game?|write a letter to my boss|
    do my homework|what is the news?|recommend a movie|how tall is Mount Everest?|Is water wet?|spell banana|when was the war?|What is the best programming language?|are you happy?|where am I?|what should I eat?|fix this bug|say something|what did I say before?"""
OFF_ANSWER = [
    "{That is beyond me|I am afraid I do not know that|That is not something I can do}: I am a {very small|tiny} model and only write picture {prompts|descriptions}. {Give me an idea|Try a picture idea}, {such as|for example} [example].",
    "I only {write about pictures|know about pictures}, {sorry|I am sorry}. {But I can describe|But I would gladly describe} [example], or {any other idea you have|whatever you would like to see}.",
]
EXAMPLES = """a boat at night|a red fox in the snow|a house under a big tree|a lighthouse in the fog|two small stars on a blue background|an old mill by the river|a cat on a windowsill|a yellow balloon over the hills|mountains at sunset|a sleeping dragon|
    a red circle on a white background|a small robot in a garden|a ship on a stormy sea|a green heart|a cup of tea by the window|a white horse at dawn|three blue triangles|a tree on a hill at sunset"""
STYLE_TAIL = [", [s]", ", [s]", ", [s] style", " in [s]", " in [s] style", ", as [s]", ". Style: [s]", " ([s])"]
ANY = split_list(ADJECTIVES["any"])


FAMILIAR = set(ANY) | set(KNOWN)


def split(text):
    return [" ".join(t.split()) for t in text.split("|")]


TALK = [(split(GREETING), GREETING_ANSWER), (split(GREETING), GREETING_ANSWER), (split(ABOUT), ABOUT_ANSWER), (split(ABOUT), ABOUT_ANSWER),
        (split(THANKS), THANKS_ANSWER), (split(OFF), OFF_ANSWER)]
EXAMPLE_LIST = split(EXAMPLES)


def noise(rng, words):
    """Text that means nothing here: the writer must look past it."""
    out = []
    while len(out) < words:
        roll = rng.random()
        out.append(invent(rng) if roll < 0.2 else rng.choice(ANY) if roll < 0.4 else rng.choice(NOUN_LISTS[rng.choice(list(NOUN_LISTS))])
                   if roll < 0.65 else rng.choice("you the user and of to write must never is answer with in a for prompt picture style when it short text only".split()))
        if rng.random() < 0.08:
            out[-1] += rng.choice((".", ",", ":", ".\n", "!"))
    return sentence(" ".join(out)) + "."


def system(rng):
    roll = rng.random()
    if roll < 0.45:
        return None
    if roll < 0.70:
        return rng.choice(WAND)
    if roll < 0.85:
        return rng.choice(OTHER)
    if roll < 0.93:
        return " ".join(rng.sample(WAND + OTHER, rng.randint(2, 4)))
    return noise(rng, rng.choice((4, 8, 15, 30)) if rng.random() < 0.96 else rng.randint(60, 250))


def request(rng, idea, bare):
    """The user's message for an idea."""
    x = idea["given"]
    if idea["style"]:
        name = idea["style"] if rng.random() < 0.6 else STYLE_ASKED[idea["style"]].replace(" style", "")
        x += rng.choice(STYLE_TAIL).replace("[s]", name)
    if rng.random() < 0.10 and (idea["det"] == "yes" or x.split()[0] in FAMILIAR):
        x = sentence(x)
    if rng.random() < 0.10:
        x += rng.choice((".", ".", "!", "...", " ", "\n", ","))
    roll = rng.random()
    if roll < 0.06:
        x = '"' + x.strip() + '"'
    elif roll < 0.07:
        x = "'" + x.strip() + "'"
    return x if bare else rng.choice(REQUEST).replace("[x]", x)


def talk(rng):
    questions, answers = rng.choice(TALK)
    values = dict(example=f'"{rng.choice(EXAMPLE_LIST)}"', number="s")
    question = rng.choice(questions)
    if rng.random() < 0.25:
        question = rng.choice((question.lower(), question.capitalize(), question + "!", question + ".", question.rstrip("?")))
    return question, sentence(fill(rng.choice(answers), rng, values))


def turn(rng):
    """-> (user, assistant, idea or None)"""
    if rng.random() < 0.07:
        return (*talk(rng), None)
    idea = make_idea(rng)
    return request(rng, idea, rng.random() < 0.5), paragraph(rng, idea), idea


def sample(rng):
    text = system(rng)
    out = [("system", text)] if text else []
    for _ in range(rng.choices((1, 2, 3, 5), (90, 7, 2.5, 0.5))[0]):
        user, answer, _ = turn(rng)
        out += [("user", user), ("assistant", answer)]
    return out
