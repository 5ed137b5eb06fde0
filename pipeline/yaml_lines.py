"""YAML that remembers where each value stands, so that a fault in a policy names its file and line.

Feeds pipeline/policy.py. Plain data only: no tags, no aliases, no key twice, bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import Fault

MAX_BYTES = 1 << 20
_MAX_DEPTH = 30
SCALAR_ERRORS = (
    yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
)  # fmt: skip
"""What PyYAML raises for a scalar that is not what its tag says (`!!int x`, 2027-02-30)."""


@dataclass(frozen=True)
class Located:
    """A YAML value and where it was written. `value` is a dict or list of Located, or a scalar."""

    value: Any
    file: Path
    line: int

    @property
    def where(self) -> str:
        """`file:line`, as editors and terminals understand it."""
        return f"{self.file}:{self.line}"

    @property
    def place(self) -> str:
        """`name:line` without the folder, which is another one on every machine."""
        return f"{self.file.name}:{self.line}"

    def plain(self) -> Any:
        """The value without its places: dicts, lists, scalars."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def at(self, path: tuple[int | str, ...]) -> Located:
        """The value at `path`, or the nearest one above it that exists."""
        here = self
        for step in path:
            inside = here.value
            try:
                here = inside[step]
            except (KeyError, IndexError, TypeError):
                break
        return here


def read_yaml(path: Path) -> tuple[Located | None, list[Fault]]:
    """One YAML mapping from `path`, and every fault found on the way; None when unusable."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None, [Fault("is larger than 1 MiB", str(path), "split it with extends")]
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return None, [
            Fault(f"cannot be read: {error.strerror}", str(path), "check path and rights")
        ]
    except UnicodeDecodeError:
        return None, [Fault("is not UTF-8", str(path), "save it as UTF-8")]
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = f"is not YAML: {error.problem or error.context}"
        return None, [Fault(what, f"{path}:{line}", "mend the YAML")]
    except (yaml.YAMLError, RecursionError) as error:
        return None, [Fault(f"is not YAML: {error}", str(path), "mend the YAML")]
    if not isinstance(node, yaml.MappingNode):
        return None, [
            Fault("holds no mapping of keys to values", str(path), "see docs/policies.md")
        ]
    reader = _Reader(path)
    return reader.located(node, node.start_mark.line + 1, 0), reader.faults


def written_path(steps: Sequence[int | str], content: Any, missing: bool) -> tuple[int | str, ...]:
    """The steps of a validation error's place that stand in the plain `content`.

    Members of a union add their own name to the place (`int`, `constrained-str`); it is not in the
    file. Of a `missing` key the last step is kept.
    """
    path: list[int | str] = []
    for step in steps:
        inside: Collection[Any] = content if isinstance(content, dict) else ()
        if isinstance(content, list | tuple) and isinstance(step, int):
            inside = range(len(content))
        if step in inside:
            content = content[step]
            path.append(step)
    if missing:
        path.append(steps[-1])
    return tuple(path)


def each_mapping(tree: Located) -> Iterator[Located]:
    """Every mapping of the tree, itself included."""
    if isinstance(tree.value, dict):
        yield tree
        for item in tree.value.values():
            yield from each_mapping(item)
    elif isinstance(tree.value, list):
        for item in tree.value:
            yield from each_mapping(item)


def merge(parent: Located, child: Located, lists: dict[str, Callable[[Any], Any]]) -> Located:
    """`child` over `parent`: mappings key by key, anything else replaced.

    `lists` names keys whose lists are merged item by item, with the function that gives an item's
    identity.
    """
    if not (isinstance(parent.value, dict) and isinstance(child.value, dict)):
        return child
    merged = dict(parent.value)
    for key, item in child.value.items():
        old = merged.get(key)
        if old is None:
            merged[key] = item
        elif key in lists and isinstance(old.value, list) and isinstance(item.value, list):
            merged[key] = _merge_lists(old, item, lists[key])
        else:
            merged[key] = merge(old, item, lists)
    return Located(merged, child.file, child.line)


def _merge_lists(old: Located, new: Located, identity: Callable[[Any], Any]) -> Located:
    replaced = {identity(item.plain()) for item in new.value}
    kept = [item for item in old.value if identity(item.plain()) not in replaced]
    return Located([*kept, *new.value], new.file, new.line)


class _Reader:
    """Turns YAML nodes into Located values and gathers faults."""

    def __init__(self, path: Path):
        self.path = path
        self.faults: list[Fault] = []
        self._seen: set[int] = set()
        self._scalars = yaml.SafeLoader("")

    def fault(self, node: yaml.Node, what: str, remedy: str) -> None:
        self.faults.append(Fault(what, f"{self.path}:{node.start_mark.line + 1}", remedy))

    def located(self, node: yaml.Node, line: int, depth: int) -> Located:
        if id(node) in self._seen or depth > _MAX_DEPTH:
            self.fault(node, "uses a YAML alias or nests too deep", "write the value out")
            return Located(None, self.path, line)
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return Located(self._mapping(node, depth), self.path, line)
        if isinstance(node, yaml.SequenceNode):
            items = [self.located(n, n.start_mark.line + 1, depth + 1) for n in node.value]
            return Located(items, self.path, line)
        return Located(self._scalar(node), self.path, line)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Located]:
        found: dict[str, Located] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, "a key is not plain text", "write the key as a word")
                continue
            # The text as written: YAML 1.1 would read `on` and `no` as true and false.
            key = key_node.value
            if key in found:
                self.fault(key_node, f"{key!r} is written twice", "keep one of them")
            line = key_node.start_mark.line + 1
            found[key] = self.located(value_node, line, depth + 1)
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._scalars.construct_object(node)
        except SCALAR_ERRORS as error:
            what = getattr(error, "problem", None) or str(error)
            self.fault(node, f"{node.value!r}: {what}", "put the value in quotes")
            return None
