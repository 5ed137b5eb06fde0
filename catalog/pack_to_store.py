"""A pack as objects in any store that fsspec knows; its check sums come last."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from catalog.pack_alone import other_pack
from pipeline.errors import Fault, InputError, SetupError
from pipeline.verify_sums import SUMS

_UNFINISHED = ".platemark-unfinished.json"


class StoreTarget:
    """Objects under an address of any fsspec store. Each appears whole; SHA256SUMS comes last.

    While an export is unfinished, an object beside the others says of which one it is.
    """

    copy = None

    def __init__(self, url: str, plan: str) -> None:
        self.url = url.rstrip("/")
        self.store, self.root = _store(self.url)
        self.plan = plan
        self.names: dict[str, str] = {}
        self.size = 0
        self.sums: bytes = b""
        found = self._listed()
        unfinished = found.pop(_UNFINISHED, None)
        same = unfinished is not None and self._unfinished_plan() == plan
        self.finished = unfinished is None and SUMS in found
        if found and unfinished is None and not self.finished:
            raise other_pack(self.url)
        self.found = set(found)
        self.sizes = found if same or self.finished else {}
        if not self.finished:
            self._put(_UNFINISHED, json.dumps({"plan": plan}).encode())

    def holds(self, name: str, sha256: str, size: int) -> bool:
        """Whether this same pack's interrupted export put an object of this size there.

        Some stores keep the half of an object when they are cut off; bytes are not read back.
        """
        # Papers are few and may say something new: only images are taken as they are.
        taken = self.finished or name.startswith("images/")
        if self.sizes.get(name) != size or name == SUMS or not taken:
            return False
        self.names[name] = sha256
        self.size += size
        return True

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Puts one object; the check sums wait for the end."""
        self.names[name] = sha256
        self.size += len(data)
        if name == SUMS:
            self.sums = data
        elif self.finished:
            raise other_pack(self.url)
        else:
            self._put(name, data)

    def complete(self) -> tuple[str, int]:
        """Nothing waits to be flushed; a finished pack must be the very same."""
        if self.finished and self.store.cat_file(f"{self.root}/{SUMS}") != self.sums:
            raise other_pack(self.url)
        for name in self.found - set(self.names) - {SUMS}:
            self.store.rm_file(f"{self.root}/{name}")
        return self.names[SUMS], self.size

    def publish(self) -> None:
        """Puts the check sums and takes the mark of the unfinished away."""
        if not self.finished:
            self._put(SUMS, self.sums)
            self.store.rm_file(f"{self.root}/{_UNFINISHED}")

    def close(self) -> None:
        """Leaves the objects where they are."""

    def discard(self) -> None:
        """Removes the objects of the unfinished pack."""
        if not self.finished:
            for name in [*self.names, _UNFINISHED]:
                with suppress(FileNotFoundError):
                    self.store.rm_file(f"{self.root}/{name}")

    def _put(self, name: str, data: bytes) -> None:
        path = f"{self.root}/{name}"
        self.store.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.store.pipe_file(path, data)

    def _listed(self) -> dict[str, int]:
        try:
            found = self.store.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        head = f"{self.root.strip('/')}/"
        return {
            path.strip("/").removeprefix(head): int(each["size"]) for path, each in found.items()
        }

    def _unfinished_plan(self) -> str | None:
        try:
            told = json.loads(self.store.cat_file(f"{self.root}/{_UNFINISHED}"))
        except (ValueError, FileNotFoundError):
            return None
        return told.get("plan") if isinstance(told, dict) else None


def _store(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise SetupError(
            f"{url} needs fsspec: install it with pip install -c constraints.txt '.[stores]'"
        ) from None
    try:
        store, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SetupError(f"{url}: {error}") from None
    except ValueError as error:
        remedy = f"one of {', '.join(sorted(fsspec.available_protocols())[:20])} …"
        raise InputError("export", [Fault(str(error), url, remedy)]) from None
    return store, str(root).rstrip("/")
