"""What an image was made of, and what was made from a photo, an adapter, a model or an image.

Walks the catalog's views a generation at a time, both ways, through images that were made from
images and adapters that were trained on them. catalog/lineage_graph.py draws what is found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from catalog.isolated import Limits, isolated, select
from catalog.lineage_subject import Reader, Subject, subject_of

Direction = Literal["up", "down"]
MOST = 1000
"""Nodes of a lineage; what is beyond is counted out, never dropped in silence."""


COLUMNS = ("depth", "kind", "name", "relation", "of", "detail", "key")
"""Of `Lineage.rows`."""


@dataclass(frozen=True)
class Node:
    """A thing in a lineage. `depth`: 0 is the subject, below what it was made of, above its issue.

    `kind`: image, picture (a file that came from outside), step (an intermediate picture), model,
    control, adapter, tool, training picture, policy, review or pack. `key` is unique, and what
    `platemark lineage` takes as a name for images, pictures, models and packs.
    """

    key: str
    kind: str
    name: str
    detail: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Edge:
    """`source` had a part in `target`, as `relation`."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True)
class Lineage:
    """All that was found, nodes by depth and edges between them. `cut`: there is more than that."""

    subject: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: bool

    def rows(self) -> list[dict[str, Any]]:
        """One row a relation: depth, kind, name, relation, of (the neighbour), detail, key."""
        by_key = {node.key: node for node in self.nodes}
        rows = [
            {
                "depth": far.depth,
                "kind": far.kind,
                "name": far.name,
                "relation": edge.relation,
                "of": near.name,
                "detail": far.detail,
                "key": far.key,
            }
            for edge in self.edges
            for near, far in [sorted((by_key[edge.source], by_key[edge.target]), key=_nearness)]
        ]
        return sorted(rows, key=lambda row: (abs(row["depth"]), row["depth"], row["kind"]))


def lineage(
    folder: Path,
    name: str,
    directions: Iterable[Direction] = ("up", "down"),
    *,
    most: int = MOST,
    limits: Limits | None = None,
    as_of: datetime | None = None,
) -> Lineage:
    """The lineage of what `name` names in the catalog in `folder`.

    `name`: a sku, `SKU-1`, the first digits (6 or more) of a SHA-256 or request id, the name of a
    picture, a model or an adapter (`name@revision` for one revision), a pack's id or file; or one
    of these after `image:`, `picture:`, `model:` or `pack:`. Raises InputError when nothing, or
    things of several kinds, are called so.
    """
    limits = limits or Limits()
    with isolated(folder, limits, as_of) as connection:

        def read(sql: str, **parameters: Any) -> list[dict[str, Any]]:
            found = select(connection, sql, parameters, limits, folder)
            rows: list[dict[str, Any]] = found.table.to_pylist()
            return rows

        return lineage_by(read, name, directions, most)


def lineage_by(
    read: Reader, name: str, directions: Iterable[Direction] = ("up", "down"), most: int = MOST
) -> Lineage:
    """The same by a reader of a catalog that is open already."""
    walk = _Walk(read, subject_of(read, name, most), most)
    for direction in directions:
        walk.go(direction)
    return walk.found(name)


class _Walk:
    """Grows a lineage a generation at a time, never over a node twice, up to `most` nodes."""

    def __init__(self, read: Reader, subjects: Iterable[Subject], most: int) -> None:
        self.read = read
        self.most = most
        self.cut = False
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}
        for each in subjects:
            self._keep(Node(each.key, each.kind, each.name, each.detail))
        self.roots = list(self.nodes)

    def go(self, direction: Direction) -> None:
        """Walks from the subjects as far as it goes."""
        before, seen, generation = set(self.nodes), set(self.roots), list(self.roots)
        while generation and not self.cut:
            met = self._parents(generation) if direction == "up" else self._children(generation)
            generation = [
                key for key in dict.fromkeys(met) if key in self.nodes and key not in seen
            ]
            seen.update(generation)
        self._set_depths(direction, set(self.nodes) - before)

    def found(self, subject: str) -> Lineage:
        """What was found so far."""
        nodes = sorted(self.nodes.values(), key=lambda node: (node.depth, node.kind, node.name))
        return Lineage(subject, tuple(nodes), tuple(self.edges), self.cut)

    def _parents(self, keys: list[str]) -> list[str]:
        ids = _ids(keys, "image")
        self._name(ids)
        met = self._made_of(ids)
        self._judged(ids)
        if keys == self.roots:
            self._packed(ids)
        met += self._trained_on(_ids(keys, "model"))
        met += self._images_of_ours(_ids(keys, "picture"))
        for row in self._ask(_PACKED_IN, ids=_ids(keys, "pack")):
            met.append(self._link(_image(row), f"pack:{row['pack_id']}", "in the pack"))
        return met

    def _children(self, keys: list[str]) -> list[str]:
        ids = _ids(keys, "image")
        self._packed(ids)
        origin = {sha256: f"picture:{sha256}" for sha256 in _ids(keys, "picture")}
        for row in self._ask(_FILES, ids=ids):
            origin[row["sha256"]] = f"image:{row['request_id']}"
        met = []
        for row in self._ask(_MADE_FROM, ids=ids, pictures=list(origin)):
            source = f"image:{row['source_request_id']}"
            source = source if source in self.nodes else origin.get(row["input"], source)
            met.append(self._link_to(source, _image(row), row["role"]))
        for row in self._ask(_TRAINED_WITH, ids=list(origin)):
            node = Node(f"model:{row['adapter']}@{row['revision']}", "adapter", row["adapter"])
            met.append(self._link_to(origin[row["sha256"]], node, "trained on"))
        for row in self._ask(_MADE_WITH, ids=_ids(keys, "model")):
            source = f"model:{row['used']}@{row['revision']}"
            met.append(self._link_to(source, _image(row), row["part"]))
        return met

    def _made_of(self, ids: list[str]) -> list[str]:
        met = []
        for row in self._ask(_INPUTS, ids=ids):
            target, source = f"image:{row['request_id']}", row["source_request_id"]
            state = "" if row["c2pa_state"] in (None, "None") else f"C2PA {row['c2pa_state']}"
            detail = "; ".join([each for each in (state, *(row["restrictions"] or ())) if each])
            if row["source"] == "asset" and source:
                node = Node(f"image:{source}", "image", row["name"], detail)
            elif row["source"] == "step":
                key = f"step:{source or row['sha256']}"
                node = Node(key, "step", row["name"], f"sha256 {str(row['sha256'])[:12]}")
            else:
                node = Node(f"picture:{row['sha256']}", "picture", row["name"], detail)
            met.append(self._link(node, target, f"{row['role']}, step {row['step']}"))
        for row in self._ask(_MODELS, ids=ids):
            key = f"model:{row['model']}@{row['revision']}"
            detail = f"{str(row['revision'])[:12]}, {row['licence'] or 'licence unknown'}"
            node = Node(key, row["part"], row["model"], detail)
            met.append(self._link(node, f"image:{row['request_id']}", row["part"]))
        return met

    def _name(self, ids: list[str]) -> None:
        """Calls images by sku and verdict, that so far bear the names that briefs gave them."""
        for row in self._ask(_IMAGES, ids=ids):
            node = _image(row)
            self.nodes[node.key] = replace(node, depth=self.nodes[node.key].depth)

    def _judged(self, ids: list[str]) -> None:
        for row in self._ask(_VERDICTS, ids=ids):
            name = f"{row['policy']} {row['policy_version']}"
            node = Node(f"policy:{row['policy_digest']}", "policy", name, row["policy_digest"][:12])
            self._link(node, f"image:{row['request_id']}", f"judged: {row['outcome']}")
        for row in self._ask(_REVIEWS, ids=ids):
            detail = f"{row['decided_at']:%Y-%m-%d}: {row['reason']}"
            node = Node(f"review:{row['review_id']}", "review", row["reviewer"], detail)
            self._link(node, f"image:{row['request_id']}", row["decision"])

    def _packed(self, ids: list[str]) -> None:
        for row in self._ask(_PACKS, ids=ids):
            detail = f"{row['terms_id'] or 'no terms'}, until {row['expires'] or 'no end'}"
            node = Node(f"pack:{row['pack_id']}", "pack", row["file"] or row["pack_id"], detail)
            self._link_to(f"image:{row['request_id']}", node, "in the pack")

    def _trained_on(self, names: list[str]) -> list[str]:
        met = []
        for row in self._ask(_TRAINING, ids=names):
            detail = f"{row['rights_holder'] or 'rights unknown'}, {row['licence'] or '?'}"
            node = Node(f"picture:{row['sha256']}", "training picture", row["file"], detail)
            met.append(self._link(node, f"model:{row['adapter']}@{row['revision']}", "trained on"))
        return met

    def _images_of_ours(self, pictures: list[str]) -> list[str]:
        """Images of this catalog that came back as files: as a photo, or to train an adapter."""
        return [
            self._link(_image(row), f"picture:{row['file']}", "the same file")
            for row in self._ask(_OURS, ids=pictures)
        ]

    def _ask(self, sql: str, **parameters: list[str]) -> list[dict[str, Any]]:
        if not any(parameters.values()):
            return []
        rows = self.read(sql, **parameters, most=self.most + 1)
        self.cut |= len(rows) > self.most
        return rows[: self.most]

    def _link(self, node: Node, target: str, relation: str) -> str:
        if self._keep(node) and target in self.nodes and target != node.key:
            self.edges[Edge(node.key, target, relation)] = None
        return node.key

    def _link_to(self, source: str, node: Node, relation: str) -> str:
        if self._keep(node) and source in self.nodes and source != node.key:
            self.edges[Edge(source, node.key, relation)] = None
        return node.key

    def _keep(self, node: Node) -> bool:
        if node.key not in self.nodes and len(self.nodes) >= self.most:
            self.cut = True
            return False
        self.nodes.setdefault(node.key, node)
        return True

    def _set_depths(self, direction: Direction, new: set[str]) -> None:
        """Each new node as far out as its longest way, so that edges point one way when drawn."""
        step = -1 if direction == "up" else 1
        depths = dict.fromkeys(self.roots, 0)
        # Hashes name their inputs, so there are no cycles; the bound is for a catalog that lies.
        for _ in range(len(new)):
            before = dict(depths)
            for edge in self.edges:
                near, far = edge.target, edge.source
                if direction == "down":
                    near, far = far, near
                if near in depths and far in new:
                    depths[far] = step * max(abs(depths[near]) + 1, abs(depths.get(far, 0)))
            if depths == before:
                break
        for key in new:
            # Not on the way: a pack that the subject went into, told of when walking up.
            self.nodes[key] = replace(self.nodes[key], depth=depths.get(key, 1))


def _nearness(node: Node) -> tuple[int, str]:
    return (abs(node.depth), node.key)


def _ids(keys: Iterable[str], kind: str) -> list[str]:
    return [key.partition(":")[2] for key in keys if key.startswith(kind + ":")]


def _image(row: dict[str, Any]) -> Node:
    """An image's node from its request's row: sku, index, outcome, model."""
    said = row.get("outcome") or row.get("state") or ""
    detail = f"{said}, {row['model']}" if row.get("model") else said
    return Node(f"image:{row['request_id']}", "image", f"{row['sku']}-{row['index']}", detail)


_IMAGE = 'r.request_id, r.sku, r."index", r.state, r.model, v.outcome'
_INPUTS = """
SELECT request_id, step, role, source, name, sha256, c2pa_state, restrictions, source_request_id
FROM inputs WHERE request_id IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_IMAGES = f"""
SELECT {_IMAGE} FROM requests AS r LEFT JOIN verdicts AS v USING (request_id)
WHERE r.request_id IN (SELECT unnest($ids)) LIMIT $most"""
_MODELS = """
SELECT u.request_id, u.part, u.model, u.revision, m.licence
FROM models_used AS u LEFT JOIN models AS m ON m.name = u.model AND m.revision = u.revision
WHERE u.request_id IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_VERDICTS = """
SELECT DISTINCT request_id, outcome, policy, policy_version, policy_digest
FROM verdict_history WHERE request_id IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_REVIEWS = """
SELECT request_id, review_id, reviewer, decision, reason, decided_at
FROM reviews WHERE request_id IN (SELECT unnest($ids)) ORDER BY decided_at DESC LIMIT $most"""
_PACKS = """
SELECT DISTINCT a.request_id, a.pack_id, p.file, p.terms_id, p.expires
FROM pack_assets AS a LEFT JOIN packs AS p USING (pack_id)
WHERE a.request_id IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_TRAINING = """
SELECT DISTINCT adapter, revision, file, sha256, rights_holder, licence FROM training_images
WHERE adapter || '@' || revision IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_TRAINED_WITH = """
SELECT DISTINCT adapter, revision, sha256 FROM training_images
WHERE sha256 IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_FILES = """
SELECT sha256, request_id FROM assets
WHERE request_id IN (SELECT unnest($ids)) AND sha256 IS NOT NULL ORDER BY ALL LIMIT $most"""
_OURS = f"""
SELECT DISTINCT {_IMAGE}, a.sha256 AS file
FROM assets AS a JOIN requests AS r USING (request_id) LEFT JOIN verdicts AS v USING (request_id)
WHERE a.sha256 IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
_MADE_FROM = f"""
SELECT DISTINCT {_IMAGE}, f.role, f.sha256 AS input, f.source_request_id, r.recorded_at
FROM inputs AS f JOIN requests AS r USING (request_id) LEFT JOIN verdicts AS v USING (request_id)
WHERE f.source_request_id IN (SELECT unnest($ids)) OR f.sha256 IN (SELECT unnest($pictures))
ORDER BY r.recorded_at DESC, r.request_id, f.role LIMIT $most"""
_MADE_WITH = f"""
SELECT DISTINCT {_IMAGE}, u.part, u.model AS used, u.revision, r.recorded_at
FROM models_used AS u JOIN requests AS r USING (request_id)
LEFT JOIN verdicts AS v USING (request_id)
WHERE u.model || '@' || u.revision IN (SELECT unnest($ids))
ORDER BY r.recorded_at DESC, r.request_id LIMIT $most"""
_PACKED_IN = f"""
SELECT DISTINCT {_IMAGE}, a.pack_id
FROM pack_assets AS a JOIN requests AS r USING (request_id)
LEFT JOIN verdicts AS v USING (request_id)
WHERE a.pack_id IN (SELECT unnest($ids)) ORDER BY ALL LIMIT $most"""
