"""Whose words an item's picture is weighed against. A part of pipeline/checks/fidelity.py."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Mapping
from itertools import islice

GENERIC = (
    "an empty picture",
    "a plain background",
    "random noise",
    "a blurred picture",
    "an abstract pattern",
    "a photo of a person",
    "a photo of a landscape",
    "a page of text",
)
"""What a picture may show that shows no product: rivals where a brief has too few others."""


class Rivals:
    """The words of a brief's items, so ordered that each item meets some of the others by chance.

    All texts lie on a ring in the order of their hashes; an item meets those that follow the hash
    of its sku (consistent hashing, Karger et al. 1997). So the same item of the same items always
    meets the same rivals, and an item more or less changes few of them.
    """

    def __init__(self, items: Mapping[str, str]):
        """`items` are the words of each item, by sku; texts that differ in case or white space
        alone are one."""
        texts = {folded(words): words for _, words in sorted(items.items()) if folded(words)}
        self._ring = sorted((_hash(key), key, words) for key, words in texts.items())
        self._places = [place for place, _, _ in self._ring]

    def of(self, sku: str, words: str, count: int) -> list[str]:
        """At most `count` texts of other items, none of them the item's own `words`."""
        own = folded(words)
        start = bisect(self._places, _hash(sku))
        following = (*range(start, len(self._ring)), *range(start))
        others = (self._ring[place] for place in following)
        return list(islice((text for _, key, text in others if key != own), count))


def folded(words: str) -> str:
    """Words without regard to case and white space."""
    return " ".join(words.casefold().split())


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
