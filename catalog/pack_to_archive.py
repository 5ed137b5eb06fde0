"""A pack as one zip or tar that grows beside its name until it is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from catalog.pack_alone import lock, no_pack, other_pack
from catalog.pack_archive import HashedWriter, form_of
from pipeline.store import flush


class ArchiveTarget:
    """A zip or tar, uncompressed: its bytes depend on the files alone."""

    copy = None

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise no_pack(path)
        self.path, self.form = path, form_of(path)
        self.part = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = self.part.open("a+b")
        lock(self.stream, self.part, path)
        self.left = self.form.scan(self.stream)
        self.writer = HashedWriter(self.stream)

    def holds(self, name: str, sha256: str, size: int) -> bool:
        """Whether the interrupted export wrote this very file next."""
        if not self.left or (self.left[0].name, self.left[0].sha256) != (name, sha256):
            return False
        self.writer.keep(self.left[0])
        self.form.entries.append(self.left.pop(0))
        return True

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Appends one file, over whatever else the interrupted export wrote there."""
        self.left.clear()
        head, entry = self.form.head(name, data, sha256, self.writer.offset)
        self.form.entries.append(entry)
        self.writer.write(head)
        self.writer.write(data)
        self.writer.write(bytes(self.form.padding(len(data))))

    def complete(self) -> tuple[str, int]:
        """Ends the archive and flushes it."""
        self.writer.write(self.form.end(self.writer.offset))
        sha256 = self.writer.finish()
        if self.path.exists():
            with self.path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    raise other_pack(self.path)
        return sha256, self.writer.offset

    def publish(self) -> None:
        """Renames it."""
        self.part.replace(self.path)
        flush(self.path.parent)
        self.close()

    def close(self) -> None:
        """Closes the part, which stays."""
        self.writer.stop()
        self.stream.close()

    def discard(self) -> None:
        """Removes the part."""
        self.part.unlink(missing_ok=True)
        self.close()
