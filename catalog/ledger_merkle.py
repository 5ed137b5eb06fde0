"""The Merkle tree of RFC 9162: hashes of leaves and nodes, roots, inclusion proofs.

Pure functions over 32-byte SHA-256 values; the ledger's other files say what the leaves are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""Root of a tree without leaves (RFC 9162, 2.1.1)."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data) (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right) (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def hashes_in(data: bytes) -> list[bytes]:
    """The hashes that stand in `data` one after the other; a last one that is short stays so."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


class Levels:
    """A whole tree: `levels[0]` are leaf hashes, each level above pairs the one below.

    A last node without a partner moves up unchanged, which gives RFC 9162's tree for any size.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels: list[list[bytes]] = [list(leaves)]
        while len(below := self.levels[-1]) > 1:
            above = [
                hashlib.sha256(b"\x01" + below[at] + below[at + 1]).digest()
                for at in range(0, len(below) - 1, 2)
            ]
            if len(below) % 2:
                above.append(below[-1])
            self.levels.append(above)

    @property
    def root(self) -> bytes:
        """The root; EMPTY_ROOT without leaves."""
        return self.levels[-1][0] if self.levels[0] else EMPTY_ROOT

    def path(self, index: int) -> list[bytes]:
        """The inclusion proof of leaf `index`, lowest sibling first (RFC 9162, 2.1.3.1)."""
        if not 0 <= index < len(self.levels[0]):
            raise IndexError(index)
        siblings = []
        for level in self.levels[:-1]:
            if (index ^ 1) < len(level):
                siblings.append(level[index ^ 1])
            index >>= 1
        return siblings


def merkle_root(leaves: bytes) -> bytes:
    """The root over leaf hashes of 32 bytes, one after the other."""
    level, sha256 = leaves, hashlib.sha256
    while len(level) > HASH_BYTES:
        whole = len(level) - len(level) % 64
        above = [sha256(b"\x01" + level[at : at + 64]).digest() for at in range(0, whole, 64)]
        level = b"".join(above) + level[whole:]
    return level or EMPTY_ROOT


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to (RFC 9162, 2.1.3.2); None when it cannot be one."""
    if not 0 <= index < size:
        return None
    at, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return found if last == 0 else None


@dataclass(frozen=True)
class Peaks:
    """A growing tree in short: its size, and the roots of its perfect subtrees, largest first.

    All that is needed to append (Russ Cox, "Transparent Logs for Skeptical Clients", 2019).
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def grown(self, leaves: Sequence[bytes]) -> Peaks:
        """The tree with more leaf hashes at its end."""
        size, hashes = self.size, list(self.hashes)
        for leaf in leaves:
            hashes.append(leaf)
            # Each trailing one bit of the size is a full subtree as large as the new one.
            bits = size
            while bits & 1:
                right = hashes.pop()
                hashes[-1] = node_hash(hashes[-1], right)
                bits >>= 1
            size += 1
        return Peaks(size, tuple(hashes))

    @property
    def root(self) -> bytes:
        """The root of the whole tree."""
        if not self.hashes:
            return EMPTY_ROOT
        found = self.hashes[-1]
        for peak in reversed(self.hashes[:-1]):
            found = node_hash(peak, found)
        return found
