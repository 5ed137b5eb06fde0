"""The words and paints of the starter world: what exists, what it is called, what colour it is.

Everything else (renderer, captions, zero-shot prompts, scores) reads its names from here.
"""

OBJECTS: tuple[str, ...] = (
    "mug", "bottle", "vase", "bowl", "lamp", "ball",
    "gift box", "chair", "book", "table", "teapot", "candle",
)  # fmt: skip
"""The catalogue objects; each comes in every colour, material, background and view."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 22, 28),
    "orange": (250, 125, 0),
    "yellow": (252, 216, 25),
    "green": (24, 132, 40),
    "teal": (0, 176, 172),
    "blue": (22, 62, 205),
    "purple": (112, 32, 160),
    "pink": (250, 120, 180),
    "white": (246, 246, 246),
    "black": (20, 20, 22),
}
"""sRGB of each colour word, chosen far apart in hue and lightness."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (240, 240, 240),
    "grey": (140, 140, 143),
    "beige": (222, 200, 165),
    "pale blue": (160, 194, 232),
    "pale pink": (243, 198, 208),
    "pale green": (176, 222, 184),
}

MATERIALS: tuple[str, ...] = ("matte", "glossy")

VIEWS: dict[str, float] = {"eye level": 9.0, "three-quarter": 30.0, "top": 46.0}
"""Camera elevation in degrees for each view's name."""

MANNEQUINS: tuple[str, ...] = ("unclothed mannequin", "mannequin in a dress", "mannequin in a suit")
"""The restricted subject first, then the same figure clothed (which is allowed)."""

RESTRICTED: tuple[str, ...] = MANNEQUINS[:1]

PROTECTED: dict[str, str] = {
    "mirolo": "Mirolo the round bear",
    "zanti": "Zanti the antenna robot",
    "orvanto": "the Orvanto logo on a plaque",
}
"""Invented protected subjects (two characters, one logo) and how captions name them."""

SUBJECTS: tuple[str, ...] = (*OBJECTS, *MANNEQUINS, *PROTECTED)

PAINTS: dict[str, tuple[int, int, int]] = {
    "ink": (30, 30, 34),
    "paper": (250, 246, 232),
    "steel": (150, 152, 158),
    "ribbon": (205, 205, 210),
    "flame": (255, 190, 60),
    "skin": (226, 178, 142),
    "skin2": (190, 138, 100),
    "skin3": (242, 206, 178),
    "plum": (122, 40, 160),
    "cream": (250, 228, 180),
    "snow": (250, 250, 250),
    "carrot": (250, 120, 20),
    "navy": (20, 28, 92),
    "coral": (255, 112, 130),
    "sun": (252, 214, 30),
    "crimson": (205, 20, 40),
    "sea": (0, 168, 160),
}
"""sRGB of parts whose colour does not follow the caption (a bottle's cap, a figure's eyes)."""
