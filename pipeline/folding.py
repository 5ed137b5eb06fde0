"""Text folded for comparison: one spelling for what a reader takes for the same words.

pipeline/denied.py looks for denied names in folded prompts. Folded text is for matching only, never
for showing. What is folded, and what is not:

- case, width and compatibility forms (NFKC, casefold), invisible characters, accents, and letters
  with strokes or hooks: "Dalí" is "dali", "Ångström" is "angstrom", "Łódź" is "lodz"; German
  umlauts written out ("Mueller") and inflected forms are other words;
- hyphens, underscores, quotes, brackets, slashes, dots within names and the marks ® © ™ are
  spaces; "and" is "&"; commas, colons and the end of a sentence stay and part phrases;
- `readings` adds what a prompt reads as when letters of other scripts stand for their Latin
  look-alikes, or digits for letters. Look-alikes of one script (l for I, rn for m) and traditional
  for simplified characters are not folded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from pipeline.lookalikes import LATIN

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19df\u3005-\u3007\u3040-\u30ff"
    "\u3100-\u31ff\u3400-\u9fff\ua960-\ua97f\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""A regex class of scripts that write without spaces or glue particles on: Thai, Lao, Myanmar,
Khmer, Tai, Han, kana, bopomofo, Hangul."""


def folded(text: str) -> str:
    """The words of `text` in their one spelling, a space between them. Idempotent."""
    return _folded(text if text.isascii() else _cleaned(text))


def readings(text: str) -> list[str]:
    """`text` folded, and folded as it would be read with look-alikes taken for what they look like.

    The first is `folded(text)`; plain text has no others. A letter of another script counts as the
    Latin one that it looks like, and a Latin one among Cyrillic or Greek ones as one of theirs.
    Digits and $ @ ! € in a word count as letters (p1casso, di$ney) when it has at least two letters
    and no more digits than letters; 1 is read as i and as l.
    """
    if text.isascii():
        found = [_folded(text)]
    else:
        clean = _cleaned(text)
        others = [_read_as_latin(clean), *(_read_as(script, clean) for script in _SCRIPTS)]
        found = [_folded(clean), *(_folded(other) for other in others if other != clean)]
    if any(map(_MIXED.search, found)):
        found += [_read_digits(each, one) for each in found for one in "il"]
    return list(dict.fromkeys(found))


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script without spaces between words."""
    return _IS_UNSPACED(character) is not None


_IS_UNSPACED = re.compile(f"[{UNSPACED}]").match
_HANGUL = "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"
# Korean parts words: a space there says as much as in Latin, and is kept.
_GAP = re.compile(rf"(?<=[{UNSPACED}])(?<![{_HANGUL}]) +(?=[{UNSPACED}])(?![{_HANGUL}])")
# A full stop ends a sentence after four letters; in "J.K.", "Dr. Seuss", "shop.com" it does not.
_INNER_DOT = re.compile(r"(?<![^\W_]{4})\.|\.(?=\S)")


class _Table(dict[int, str | int | None]):
    """A table for `str.translate` that asks `rule` for each character once."""

    def __init__(self, rule: Callable[[str], str | None]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str | None:
        self[code] = found = self._rule(chr(code))
        return found


def _visible(character: str) -> str | None:
    if character == "\u2800":  # Braille blank
        return " "
    hidden = unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()
    return None if hidden or character in "\u115f\u1160\u0640" else character  # fillers, kashida


# Combining marks that are accents or optional points; in other scripts marks are vowels.
_ACCENT = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u1ab0-\u1aff\u180b-\u180f\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    "\U000e0100-\U000e01ef]"
)
# NFKC would make "Nike™" "Niketm".
_TRADE_MARKS = str.maketrans(dict.fromkeys("™℠®©", " "))
_VISIBLE = _Table(_visible)


def _cleaned(text: str) -> str:
    """Compatibility forms, invisible characters and accents gone; case kept."""
    text = unicodedata.normalize("NFKC", text.translate(_TRADE_MARKS)).translate(_VISIBLE)
    return unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", text)))


def _plain(character: str) -> str:
    """The letter without its stroke, hook or tail: NFD does not part these."""
    if ord(character) < 0x80:
        return character
    found = re.match(r"LATIN SMALL LETTER ([A-Z]) WITH ", unicodedata.name(character, ""))
    return found[1].lower() if found else _LIGATURES.get(character, character)


_LIGATURES = dict(
    zip("æœðþıŋĸیىک", ["ae", "oe", "d", "th", "i", "n", "k", "ي", "ي", "ك"], strict=True)
)
_PLAIN = _Table(_plain)


def _parted(character: str) -> str | None:
    """Spaces for what stands between the parts of a name."""
    if character == "&":
        return " & "
    between = unicodedata.category(character) in ("Pd", "Pc", "Ps", "Pe", "Pi", "Pf")
    # Modifier letters from 02B9 on are apostrophes in O‘ahu and Hawai‘i.
    if between or character in "'\"`/\\*#~|<>^=·•‧・∙⋅⁄′″" or "\u02b9" <= character <= "\u02ff":
        return " "
    return _visible(character)


_PARTED = _Table(_parted)


def _folded(text: str) -> str:
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKC", text.casefold()).translate(_PLAIN)
    text = _INNER_DOT.sub(" ", text.translate(_PARTED))
    text = " ".join("&" if word == "and" else word for word in text.split())
    # A voicing mark may meet its kana only now.
    return text if text.isascii() else unicodedata.normalize("NFC", _GAP.sub("", text))


_AS_WRITTEN = str.maketrans({like: letter for letter, all_ in LATIN.items() for like in all_})
# Beside Latin letters even к, м, н, т, в are read as Latin, although only К, М, Н, Т, В look so.
_AMONG_LATIN = {
    ord(chr(code).lower()): letter.lower()
    for code, letter in _AS_WRITTEN.items()
    if len(chr(code).lower()) == 1
} | _AS_WRITTEN
_LOOKALIKE = re.compile(f"[{''.join(map(chr, _AMONG_LATIN))}]")
_WORD = re.compile(r"(?:[^\W_]|[⍶⍺⍳⍸⍴⍬⍡℮])+")


def _script(letters: str) -> tuple[re.Pattern[str], dict[int, str]]:
    """A script: where its letters touch Latin ones, and Latin letters by what they are there."""
    own = re.compile(f"[{letters}]")
    back = {
        ord(latin): chr(code)
        for code, latin in reversed(_AMONG_LATIN.items())
        if own.match(chr(code))
    }
    return re.compile(f"[A-Za-z][{letters}]|[{letters}][A-Za-z]"), back


_SCRIPTS = (_script("\u0400-\u045f"), _script("\u0370-\u03ff"))
_HAS_LATIN = re.compile("[A-Za-z]")


def _read_as_latin(text: str) -> str:
    if not _LOOKALIKE.search(text):
        return text
    if _HAS_LATIN.search(text):
        text = _WORD.sub(_among_latin, text)
    return text.translate(_AS_WRITTEN)


def _among_latin(word: re.Match[str]) -> str:
    return word[0].translate(_AMONG_LATIN) if _HAS_LATIN.search(word[0]) else word[0]


def _read_as(script: tuple[re.Pattern[str], dict[int, str]], text: str) -> str:
    touching, back = script
    if not touching.search(text):
        return text
    return _WORD.sub(
        lambda word: word[0].translate(back) if touching.search(word[0]) else word[0], text
    )


_MIXED = re.compile(r"[^\W\d_](?:\d|[$@!€][^\W\d_])|\d[^\W\d_]")
_MARK_IN_WORD = re.compile(r"(?<=[^\W\d_])[$@!€](?=[^\W\d_])")
_WITH_DIGIT = re.compile(r"\b(?=[^\W\d_]*\d)[^\W_]+")
_LETTER_OF = {"$": "s", "@": "a", "!": "i", "€": "e"}
_DIGITS = {one: str.maketrans("0134578", f"o{one}eastb") for one in "il"}


def _read_digits(text: str, one: str) -> str:
    text = _MARK_IN_WORD.sub(lambda mark: _LETTER_OF[mark[0]], text)
    return _WITH_DIGIT.sub(lambda word: _spelled(word[0], one), text)


def _spelled(word: str, one: str) -> str:
    digits = sum(map(str.isdigit, word))
    return word.translate(_DIGITS[one]) if len(word) - digits >= max(2, digits) else word
