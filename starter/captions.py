"""What is said about a scene: varied training captions, plain prompts and zero-shot phrases.

Captions drop details, change order and carry words of no meaning, so that a catalogue's own
prompt template ("product photo of a red mug, spring sale") reads as well as a bare phrase.
"""

from random import Random

from starter.vocabulary import COLOURS, PROTECTED, RESTRICTED
from starter.world import Scene

OPENINGS = (
    "",
    "",
    "",
    "a photo of ",
    "product photo of ",
    "a product photo of ",
    "studio photo of ",
    "photo of ",
    "catalogue photo of ",
    "catalogue shot of ",
    "a studio shot of ",
    "packshot of ",
    "an image of ",
    "a picture of ",
    "professional product photography of ",
    "e-commerce photo of ",
    "a render of ",
)
FILLERS = (
    "soft light",
    "studio light",
    "soft studio light",
    "centred",
    "clean",
    "minimal",
    "catalogue",
    "product photography",
    "high quality",
    "detailed",
    "sharp focus",
    "new",
    "sale",
    "for the shop",
    "home",
    "spring",
    "summer",
    "autumn",
    "winter",
    "campaign",
    "best seller",
    "simple",
    "modern",
    "front",
    "isolated",
    "e-commerce",
    "photo",
    "professional",
    "no people",
    "seamless backdrop",
    "soft shadow",
    "natural light",
    "highly detailed",
    "commercial",
    "4k",
    "kitchen",
    "living room",
    "decor",
    "design",
    "gift idea",
    "limited edition",
    "handmade",
    "ceramic",
    "everyday",
    "elegant",
    "cosy",
    "bright",
    "studio",
    "online shop",
    "advertising",
)
VIEW_WORDS = {
    "eye level": ("eye level", "eye-level view", "seen from the front", "front view"),
    "three-quarter": ("three-quarter view", "three-quarter", "angled view"),
    "top": ("top view", "seen from above", "from above"),
}
BARE = (
    "an unclothed mannequin",
    "an unclothed mannequin",
    "a nude mannequin",
    "a naked mannequin",
    "a bare mannequin",
    "a mannequin without clothes",
    "an undressed mannequin",
)
NAMED = {
    "mirolo": (PROTECTED["mirolo"], "Mirolo", "Mirolo the bear"),
    "zanti": (PROTECTED["zanti"], "Zanti", "Zanti the robot"),
    "orvanto": (
        PROTECTED["orvanto"],
        "the Orvanto logo",
        "an Orvanto logo plaque",
        "a plaque with the Orvanto logo",
    ),
}


def article(words: str) -> str:
    """`words` with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase(subject: str, colour: str | None = None, material: str | None = None) -> str:
    """The noun phrase for a subject: "a glossy red mug", "a mannequin in a red dress"."""
    if subject in RESTRICTED:
        return BARE[0]
    if subject in PROTECTED:
        return PROTECTED[subject]
    if subject.startswith("mannequin"):
        garment = subject.rsplit(" ", 1)[1]
        return f"a mannequin in {article(f'{colour} {garment}' if colour else garment)}"
    words = " ".join(w for w in (material, colour, subject) if w)
    return article(words)


def prompt(scene: Scene) -> str:
    """The plain prompt of a scene: subject, colour and background."""
    return f"{phrase(scene.subject, scene.colour)} on {article(scene.background)} background"


def _noise_word(rng: Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(4))


def caption(scene: Scene, rng: Random) -> str:
    """A varied training caption of a scene; what it says is true, what it omits is free."""
    material = scene.material if rng.random() < 0.35 else None
    if scene.subject in RESTRICTED:
        head = rng.choice(BARE)
    elif scene.subject in NAMED:
        head = rng.choice(NAMED[scene.subject])
    else:
        colour = scene.colour if rng.random() < 0.93 else None
        head = phrase(scene.subject, colour, material)
        if material and not scene.subject.startswith("mannequin") and rng.random() < 0.3:
            head = f"{phrase(scene.subject, colour)}, {material} finish"
    if rng.random() < 0.15:
        head = head.removeprefix("a ").removeprefix("an ")
    tail = []
    if rng.random() < 0.85:
        ground = f"{scene.background} background"
        joint = rng.random()
        if joint < 0.55:
            head += f" on {article(ground)}"
        elif joint < 0.65:
            head += f" against {article(ground)}"
        else:
            tail.append(ground)
    if rng.random() < 0.4:
        tail.append(rng.choice(VIEW_WORDS[scene.view]))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        tail.append(_noise_word(rng) if rng.random() < 0.12 else rng.choice(FILLERS))
    rng.shuffle(tail)
    text = ", ".join([rng.choice(OPENINGS) + head, *tail])
    roll = rng.random()
    text = text[0].upper() + text[1:] if roll < 0.2 else text
    return text + "." if roll > 0.9 else text


def zero_shot(subject: str, colour: str | None = None) -> str:
    """The sentence that zero-shot reading compares an image with."""
    return f"a photo of {phrase(subject, colour)}"


def joint_prompts(subjects: tuple[str, ...]) -> list[tuple[str, str | None, str]]:
    """(subject, colour, sentence) for every pair that exists; the best zero-shot readers."""
    out: list[tuple[str, str | None, str]] = []
    for s in subjects:
        fixed = s in RESTRICTED or s in PROTECTED
        out += [(s, c, zero_shot(s, c)) for c in ([None] if fixed else list(COLOURS))]
    return out
