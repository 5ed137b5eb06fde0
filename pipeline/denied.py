"""Denied names in prompts: which of thousands of names a prompt holds, and files of such names.

pipeline/verdict.py asks for the words of a policy's `prompts.deny`, at planning and in verdicts;
pipeline/policy_names.py reads the files. What counts as the same spelling is in
pipeline/folding.py; what counts as the same words is here:

- A name is found as whole words. Digits before or after it do not hide it; letters do, so plurals
  and inflected forms are names of their own. "Picasso's" holds "Picasso".
- The parts of a name may be written apart or together: "Spider-Man" is found in "spider man" and
  "spiderman". A name written as one word is found as one word: "Goodyear" is not in "a good year".
- A name spelled out is found: "L E G O", "n-i-k-e", from four letters on.
- In scripts without spaces between words any occurrence counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

from pipeline.errors import Fault
from pipeline.folding import folded, is_unspaced, readings

_MAX_BYTES = 1 << 20
_BREAKS = str.maketrans("", "", ",;:!?.。、，；：！？")
_JOINED = 3
"""From this many letters on a name in parts is also found written together: E.T. is no "et"."""
_SPELLED = 4
_TOGETHER = 64
_BETWEEN = "\nqqqq\n"
"""Parts prompts: no name goes on across it, and no letters are spelled out."""
_PREFIX = 4


def denied_words(deny: tuple[str, ...], prompt: str) -> list[str]:
    """The denied words that `prompt` holds, in the order of `deny`.

    A word without a letter, digit or sign that counts is looked for as it is written.
    """
    found = _index(deny).found_in(prompt)
    return [deny[place] for place in sorted(found)]


def denied_in(deny: tuple[str, ...], prompts: Sequence[str]) -> dict[str, list[str]]:
    """The prompts that hold denied words, each with its words; each distinct prompt is read once.

    For many prompts give chunks of them: what is known of `deny` is kept between calls.
    """
    index = _index(deny)
    distinct = list(dict.fromkeys(prompts))
    hits = {}
    for start in range(0, len(distinct), _TOGETHER):
        some = distinct[start : start + _TOGETHER]
        # Most hold nothing, and many are found out about as fast as one.
        if not index.clear(_BETWEEN.join(some)):
            hits.update({prompt: found for prompt in some if (found := index.found_in(prompt))})
    return {prompt: [deny[place] for place in sorted(found)] for prompt, found in hits.items()}


def read_names(path: Path) -> tuple[list[tuple[str, int]], list[Fault]]:
    """The names of a file, each with its line, and what is wrong with the file.

    UTF-8, a name a line; blank lines and what follows a `#` (at the start, or after a space) are
    left out. Faults: unreadable, over 1 MiB, not UTF-8, a name of no or of one letter, a name that
    says the same as one above it.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MAX_BYTES else b""
    except OSError as error:
        return [], [
            Fault(f"cannot be read: {error.strerror}", str(path), "make it a readable file")
        ]
    if size > _MAX_BYTES:
        remedy = "split it into several lists"
        return [], [
            Fault(f"has {size:,} bytes; at most {_MAX_BYTES:,} are read", str(path), remedy)
        ]
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        return [], [Fault("is not UTF-8", f"{path}:{number}", "save the file as UTF-8")]
    names: list[tuple[str, int]] = []
    faults: list[Fault] = []
    seen: dict[tuple[str, frozenset[int]], int] = {}
    for number, line in enumerate(lines, 1):
        name = _without_comment(line)
        if not name:
            continue
        where = f"{path}:{number}"
        key = _Line(folded(name).translate(_BREAKS)).key
        letters = sum(character.isalnum() for character in key[0])
        if not letters:
            faults.append(Fault(f"{name!r} holds no letter or digit", where, "drop the line"))
        elif letters == 1:
            remedy = "write the whole name; a single letter may stand in prompts.deny"
            faults.append(Fault(f"{name!r} is a single letter", where, remedy))
        elif key in seen:
            what = f"{name!r} says the same as line {seen[key]}"
            faults.append(Fault(what, where, "drop one of the two"))
        else:
            seen[key] = number
            names.append((name, number))
    return names, faults


def _without_comment(line: str) -> str:
    start = 0 if line.lstrip().startswith("#") else len(line)
    for mark in (" #", "\t#"):
        start = min(start, line.find(mark) if mark in line else start)
    return line[:start].strip()


class _Line:
    """Folded text without its spaces: the letters, and where words may begin or end (where spaces
    were, and where letters meet digits, signs or a script without spaces)."""

    def __init__(self, text: str) -> None:
        self._words = text.split()
        self.letters = "".join(self._words)
        runs = _ASCII_RUN.findall(text) if text.isascii() else _RUN.findall(text.translate(_KINDS))
        self.edges = [0, *accumulate(map(len, runs))]

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Where the spaces were."""
        return tuple(accumulate(map(len, self._words[:-1])))

    @property
    def key(self) -> tuple[str, frozenset[int]]:
        """Equal for equal words."""
        return self.letters, frozenset(self.cuts)


class _Kinds(dict[int, str]):
    """A table for `str.translate`: l(etter), d(igit), u(nspaced), s(ign) or a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character == " ":
            kind = " "
        elif is_unspaced(character):
            kind = "u"
        elif character.isdigit():
            kind = "d"
        else:
            # Marks that folding left are vowels.
            letter = character.isalpha() or unicodedata.category(character).startswith("M")
            kind = "l" if letter else "s"
        self[code] = kind
        return kind


_KINDS = _Kinds()
_ASCII_RUN = re.compile("[a-z]+|[0-9]+|[^a-z0-9 ]")
_RUN = re.compile("l+|d+|u+|s")
# What folding and other readings may change in a word beyond its case, and letters spelled out.
_DEVIOUS = re.compile(r"[^ -~]|[a-z](?:\d|[$@!][a-z])|\d[a-z]")
_SPELLED_OUT = re.compile(r"(?<![a-z0-9])[a-z0-9][^a-z0-9]+[a-z0-9](?![a-z0-9])")


@dataclass(frozen=True)
class _Index:
    """A deny-list ready for search: letters of a name → its spellings, (cuts, place in the list).

    `loose` holds names that begin or end in a script without spaces, with their lengths by first
    character; `literal` what folds to nothing.
    """

    spaced: dict[str, list[tuple[frozenset[int], int]]]
    loose: dict[str, list[tuple[frozenset[int], int]]]
    lengths: dict[str, tuple[int, ...]]
    literal: tuple[tuple[str, int], ...]
    longest: dict[str, int]
    """Length of the longest name with this beginning."""
    short: int
    """Length of the longest name that is too short to have one."""
    begins: frozenset[str]
    """The words that a name may begin with where it is written in plain ASCII."""

    def found_in(self, prompt: str) -> set[int]:
        """Places in the deny-list of the names that `prompt` holds."""
        if self.clear(prompt):
            return set()
        found = {place for word, place in self.literal if word in prompt}
        for text in readings(prompt):
            line = _Line(text)
            found.update(self._spaced_in(line))
            if self.loose and not text.isascii():
                found.update(self._loose_in(line))
        return found

    def clear(self, text: str) -> bool:
        """Whether plain text holds no name at all; False where that takes a closer look."""
        plain = text.lower()
        if not text.isascii() or _SPELLED_OUT.search(plain):
            return False
        words = " ".join(set(plain.split()))
        return (
            not _DEVIOUS.search(words)
            and self.begins.isdisjoint(_ASCII_RUN.findall(words))
            and not any(word in text for word, _ in self.literal)
        )

    def _spaced_in(self, line: _Line) -> Iterator[int]:
        letters, edges, spaced = line.letters, line.edges, self.spaced
        for first, start in enumerate(edges):
            last = start + self.longest.get(letters[start : start + _PREFIX], self.short)
            for place in range(first + 1, len(edges)):
                end = edges[place]
                if end > last:
                    break
                names = spaced.get(letters[start:end])
                if names:
                    yield from _agreeing(names, line, start, end)

    def _loose_in(self, line: _Line) -> Iterator[int]:
        letters, edges = line.letters, set(line.edges)
        for start, character in enumerate(letters):
            for length in self.lengths.get(character, ()):
                end = start + length
                names = self.loose.get(letters[start:end])
                if (
                    names
                    and end <= len(letters)
                    and (start in edges or is_unspaced(character))
                    and (end in edges or is_unspaced(letters[end - 1]))
                ):
                    yield from _agreeing(names, line, start, end)


def _agreeing(
    names: list[tuple[frozenset[int], int]], line: _Line, start: int, end: int
) -> Iterator[int]:
    """The names whose parts the prompt keeps apart nowhere else than they do."""
    inner = {cut - start for cut in line.cuts if start < cut < end}
    length = end - start
    spelled_out = length >= _SPELLED and len(inner) == length - 1
    for cuts, place in names:
        if spelled_out or (inner <= cuts if length >= _JOINED else inner == cuts):
            yield place


_recent: dict[int, tuple[tuple[str, ...], _Index]] = {}


def _index(deny: tuple[str, ...]) -> _Index:
    # Hashing a tuple of 20,000 words takes longer than reading a prompt; its identity does not.
    held = _recent.get(id(deny))
    if held is not None and held[0] is deny:
        return held[1]
    index = _index_of(deny)
    if len(_recent) >= 32:
        _recent.clear()
    _recent[id(deny)] = (deny, index)
    return index


@lru_cache(maxsize=32)
def _index_of(deny: tuple[str, ...]) -> _Index:
    spaced: dict[str, list[tuple[frozenset[int], int]]] = {}
    loose: dict[str, list[tuple[frozenset[int], int]]] = {}
    literal: list[tuple[str, int]] = []
    begins: set[str] = set()
    for place, word in enumerate(deny):
        text = folded(word)
        if not text:
            literal += [(word, place)] if word.strip() else []
            continue
        # With and without punctuation: "Yahoo!" is "yahoo", "Monsters, Inc." is "monsters inc".
        for each in dict.fromkeys([text, text.translate(_BREAKS)]):
            line = _Line(each)
            letters, cuts = line.key
            begins.update(letters[:edge] for edge in line.edges[1:])
            if letters:
                at_ends = is_unspaced(letters[0]) or is_unspaced(letters[-1])
                table = loose if at_ends else spaced
                table.setdefault(letters, []).append((cuts, place))
    lengths: dict[str, set[int]] = {}
    for letters in loose:
        lengths.setdefault(letters[0], set()).add(len(letters))
    short = max((len(letters) for letters in spaced if len(letters) < _PREFIX), default=0)
    longest: dict[str, int] = {}
    for letters in spaced:
        beginning = letters[:_PREFIX]
        longest[beginning] = max(longest.get(beginning, short), len(letters))
    by_first = {first: tuple(sorted(each)) for first, each in lengths.items()}
    if "&" in begins:
        begins.add("and")
    return _Index(spaced, loose, by_first, tuple(literal), longest, short, frozenset(begins))
