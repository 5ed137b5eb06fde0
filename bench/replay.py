"""Times a replay over 10,000,000 stored score sets: python bench/replay.py [--count N]

Beside it a query written by hand for the same question on the same tables: how many verdicts change
under this one policy, which way, by campaign. Written by hand it trusts the tables: no request
tried twice, no score missing, no NaN, all licences allowed. Eight scores an image, written in SQL
into a real lake in a temporary folder. Each runs in a process of its own, so that its peak memory
is its own; both must count the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from catalog.lake import attached, writing  # noqa: E402
from catalog.metadata import metadata_copy  # noqa: E402
from catalog.replay import replay  # noqa: E402
from catalog.write import register_model  # noqa: E402
from pipeline.policy import policy_from_text  # noqa: E402

POLICY = """
policy: new
version: "2"
checks: {nsfw: {concepts: {model: a, unsafe: [x], safe: [y]}}, quality: {}, duplicates: {},
  similarity: {model: a, libraries: [p]}, copying: {libraries: [logos], descriptor: d}}
rules:
- {check: nsfw, score: concept, review: {at_least: 0.8}, block: {at_least: 0.87}}
- {check: similarity, score: nearest, review: {at_least: 0.88}}
- {check: duplicates, score: exact, block: {at_least: 1}}
- {check: duplicates, score: near, review: {below: 32}}
- {check: quality, score: decodes, block: {below: 1}}
- {check: quality, score: contrast, review: {below: 0.06}, channels: [amazon], severity: high}
- {check: copying, score: descriptor, review: {at_least: 0.78}}
- {name: both, outcome: block, all: [{check: copying, score: descriptor, at_least: 0.6},
   {check: nsfw, score: concept, at_least: 0.6}]}
licences: [Apache-2.0]
prompts: {deny: [logo, trademark]}
"""

_ATTEMPT = (
    "printf('%014x', 1700000000000000 + (i // 64) * 1000000) "
    "|| substr(md5((i // 64)::VARCHAR), 1, 16)"
)
_UNIFORM = "((hash(i, {}) >> 11)::DOUBLE / 9007199254740992)"
SCORES = {
    ("nsfw", "concept"): f"0.9 * {_UNIFORM.format(0)} ** 3",
    ("similarity", "nearest"): f"0.4 + 0.5 * {_UNIFORM.format(1)} ** 4",
    ("duplicates", "exact"): f"({_UNIFORM.format(2)} < 0.002)::INT",
    ("duplicates", "near"): f"floor(30 + 220 * {_UNIFORM.format(3)})",
    ("quality", "sharpness"): f"0.02 + {_UNIFORM.format(4)}",
    ("quality", "contrast"): f"0.05 + {_UNIFORM.format(5)}",
    ("quality", "decodes"): "1.0",
    ("copying", "descriptor@logos"): f"0.8 * {_UNIFORM.format(6)} ** 3",
}
"""Values by name; most pass."""

BY_HAND = """
WITH facts AS (
    SELECT request_id,
           max(value) FILTER (check_name = 'nsfw') AS nsfw,
           max(value) FILTER (check_name = 'copying') AS copying,
           bool_or(check_name = 'duplicates' AND name = 'exact' OR name = 'decodes') AS blocks,
           bool_or(check_name = 'similarity' OR name = 'near') AS reviews,
           bool_or(name = 'contrast') AS contrast
    FROM raw.scores
    WHERE (check_name = 'nsfw' AND name = 'concept' AND value >= 0.6)
       OR (check_name = 'similarity' AND name = 'nearest' AND value >= 0.88)
       OR (check_name = 'duplicates' AND name = 'exact' AND value >= 1)
       OR (check_name = 'duplicates' AND name = 'near' AND value < 32)
       OR (check_name = 'quality' AND name = 'decodes' AND value < 1)
       OR (check_name = 'quality' AND name = 'contrast' AND value < 0.06)
       OR (check_name = 'copying' AND name = 'descriptor@logos' AND value >= 0.6)
    GROUP BY request_id),
before AS (
    SELECT request_id, CASE outcome WHEN 'block' THEN 2 ELSE 1 END AS was FROM raw.verdicts
    WHERE outcome <> 'pass'),
denied AS (
    SELECT request_id FROM raw.requests
    WHERE regexp_matches(lower(prompt), '\\b(logo|trademark)\\b')),
judged AS (
    SELECT request_id, coalesce(was, 0) AS was,
           CASE WHEN d.request_id IS NOT NULL OR blocks OR nsfw >= 0.87
                     OR (nsfw >= 0.6 AND copying >= 0.6) THEN 2
                WHEN reviews OR nsfw >= 0.8 OR copying >= 0.78 THEN 1 ELSE 0 END AS now, contrast
    FROM facts FULL JOIN before USING (request_id) FULL JOIN denied AS d USING (request_id))
SELECT campaign, was, now, count(*) AS images FROM (
    SELECT campaign, was, CASE WHEN now = 0 AND contrast
                               AND list_has_any(CAST(terms -> '$.channels' AS VARCHAR[]),
                                                ['amazon', 'any']) THEN 1 ELSE now END AS now
    FROM judged JOIN raw.requests USING (request_id))
WHERE was <> now GROUP BY ALL
"""


def main() -> None:
    """Build the lake, ask both ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask(options.ask[0], Path(options.ask[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        build(Path(folder) / "catalog", options.count)
        print(f"{options.count:,} score sets in {time.perf_counter() - begun:.0f} s")
        compare(Path(folder) / "catalog")


def compare(folder: Path) -> None:
    """Both on the catalog in `folder`, and their ratio."""
    asked = {}
    for way in ("by hand", "replay"):
        command = [sys.executable, __file__, "--ask", way, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        asked[way] = json.loads(done.stdout)
        told = asked[way]
        print(
            f"{way:8} {told['seconds']:7.2f} s wall {told['cpu']:7.2f} s CPU "
            f"{told['gib']:5.2f} GiB peak  {told['changed']:,} verdicts change"
        )
    ratios = (asked["replay"][of] / asked["by hand"][of] for of in ("seconds", "cpu"))
    print("replay over by hand: {:.2f} wall, {:.2f} CPU".format(*ratios))
    if asked["replay"]["changed"] != asked["by hand"]["changed"]:
        sys.exit("the two do not count the same")


def ask(way: str, folder: Path) -> dict[str, float]:
    """One of the two in this process, with two threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    with metadata_copy(folder) as copy, attached(copy, folder, read_only=True) as connection:
        connection.execute("SET threads = 2")
        if way == "replay":
            from catalog.lake import Lake

            changed = replay(Lake(folder, connection), policy_from_text(POLICY)).changed
        else:
            changed = sum(row[3] for row in connection.execute(BY_HAND).fetchall())
        return {
            "seconds": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "changed": changed,
        }


def build(folder: Path, count: int) -> None:
    """A lake of `count` images: requests, scores, verdicts (3 % blocked, 5 % in review), files."""
    items = ", ".join(
        f"{{'check': '{check}', 'name': '{name}', 'value': ({value})::DOUBLE}}"
        for (check, name), value in SCORES.items()
    )
    with writing(folder) as lake, lake.alone() as connection:
        connection.execute("SET threads = 2")
        connection.execute(
            f"""
            INSERT INTO raw.requests BY NAME
            SELECT sha256(i::VARCHAR) AS request_id, {_ATTEMPT} AS attempt,
                   'run-' || (i // 100000) AS run_id, md5((i // 64)::VARCHAR) AS batch_id,
                   'done' AS state,
                   TIMESTAMPTZ '2026-01-01' + INTERVAL 1 SECOND * (i // 64) AS recorded_at,
                   'SKU-' || (i // 4) AS sku, i % 4 AS "index",
                   'campaign-' || (i // 50000) AS campaign, 'acme' AS client,
                   'text-to-image' AS mode, 'starter' AS model, 'r1' AS model_revision,
                   'a ' || ['red', 'blue', 'green'][1 + i % 3] || ' mug number ' || (i // 100)
                       AS prompt,
                   sha256((i // 100)::VARCHAR) AS prompt_sha256, '' AS negative_prompt,
                   i AS seed, 512 AS width, 512 AS height, 20 AS steps, 3.0 AS guidance,
                   'ddim' AS scheduler,
                   CASE WHEN i % 3 = 0 THEN '{{"id":"t","channels":["web","print"]}}'
                        ELSE '{{"id":"a","channels":["amazon"]}}' END AS terms, 't' AS terms_id
            FROM range({count}) AS t(i)
            """
        )
        connection.execute(
            f"""
            INSERT INTO raw.scores BY NAME
            SELECT request_id, attempt, s."check" AS check_name, s.name, s.value,
                   '{{"detector":"x","revision":"1"}}' AS evidence, s."check" AS detector,
                   CASE WHEN s."check" IN ('nsfw', 'similarity') THEN sha256('weights')
                        ELSE '1' END AS revision
            FROM (SELECT sha256(i::VARCHAR) AS request_id, {_ATTEMPT} AS attempt,
                         unnest([{items}]) AS s FROM range({count}) AS t(i))
            """
        )
        connection.execute(
            """
            INSERT INTO raw.verdicts BY NAME
            SELECT request_id, attempt, CASE WHEN h < 3 THEN 'block' WHEN h < 8 THEN 'review'
                   ELSE 'pass' END AS outcome, 'retail' AS policy, '1' AS policy_version,
                   'aa' AS policy_digest, recorded_at AS decided_at
            FROM (SELECT request_id, attempt, recorded_at, hash(request_id) % 100 AS h
                  FROM raw.requests)
            """
        )
        connection.execute(
            """
            INSERT INTO raw.assets BY NAME
            SELECT request_id, attempt, 'run' AS made_by, sha256(request_id) AS sha256,
                   CASE WHEN hash(request_id) % 100 < 8 THEN 'quarantined'
                        ELSE 'signed' END AS state,
                   'assets/xx' AS url, 'image/png' AS mime, 512 AS width, 512 AS height,
                   1000 AS size, sha256(request_id) AS pixels_sha256, recorded_at
            FROM raw.requests
            """
        )
    with writing(folder) as lake:
        register_model(lake, name="starter", revision="r1", licence="Apache-2.0", source="hub")


if __name__ == "__main__":
    main()
