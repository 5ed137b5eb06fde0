"""Times a replay over 10,000,000 stored score sets: python bench/replay.py [--count N]

Beside it queries written by hand for the same question on the same tables: how many verdicts change
under this one policy, which way, by campaign, and which twenty images matter most. Written by hand
they trust the tables: no request measured again, no score missing, no NaN, all licences allowed, no
verdict replayed, approvals for good; and they give no reasons and no packs that would no longer
pass. Eight scores an image, in a catalog that bench/large_catalog.py fills in a temporary folder.
Each runs in a process of its own, so that its peak memory is its own; both must answer the same.
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
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.large_catalog import build  # noqa: E402
from catalog.lake import attached  # noqa: E402
from catalog.metadata import metadata_copy  # noqa: E402
from catalog.replay import replay  # noqa: E402
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

BY_HAND = r"""
CREATE TEMP TABLE judged AS
WITH scored AS (
    SELECT request_key, attempt, campaign, terms, prompt,
           CASE outcome WHEN 'block' THEN 2 WHEN 'review' THEN 1 ELSE 0 END AS was,
           "values"[1] AS nsfw, "values"[2] AS nearest, "values"[3] AS exact, "values"[4] AS near,
           "values"[6] AS contrast, "values"[7] AS decodes, "values"[8] AS copying
    FROM raw.images ANTI JOIN raw.superseded_attempts USING (request_key, attempt)
    WHERE state = 'done'),
judged AS (
    SELECT *, regexp_matches(lower(prompt), '\b(logo|trademark)\b') AS denied,
           CASE WHEN denied OR exact >= 1
                     OR decodes < 1 OR nsfw >= 0.87 OR (nsfw >= 0.6 AND copying >= 0.6) THEN 2
                WHEN nearest >= 0.88 OR near < 32 OR nsfw >= 0.8 OR copying >= 0.78 THEN 1
                WHEN contrast < 0.06 AND list_has_any(CAST(terms -> '$.channels' AS VARCHAR[]),
                                                      ['amazon', 'any']) THEN 1
                ELSE 0 END AS now
    FROM scored)
SELECT request_key, attempt, campaign, was, now,
       now = 1 AND contrast < 0.06 AND NOT (nearest >= 0.88 OR near < 32 OR nsfw >= 0.8
                                            OR copying >= 0.78) AS severe,
       CASE WHEN denied THEN 'Infinity'::DOUBLE ELSE
       greatest((copying - 0.6) / 0.6, (nsfw - 0.6) / 0.6, (nearest - 0.88) / 0.88, exact - 1,
                (32 - near) / 32, (0.06 - contrast) / 0.06, 1 - decodes) END AS beyond
FROM judged WHERE was <> now OR was = 1 AND now = 1;
CREATE TEMP TABLE approved AS
SELECT left(request_id, 32)::UUID AS request_key
FROM raw.reviews GROUP BY request_id HAVING arg_max(decision, decided_at) = 'approve';
CREATE TEMP TABLE packed AS
SELECT left(request_id, 32)::UUID AS request_key, list(DISTINCT pack_id) AS packs
FROM raw.pack_assets GROUP BY request_id;
CREATE TEMP TABLE changes AS
SELECT campaign, was, now, count(*) AS images FROM judged WHERE was <> now GROUP BY ALL;
CREATE TEMP TABLE first_ones AS
SELECT j.*, packs FROM judged AS j LEFT JOIN packed USING (request_key)
LEFT JOIN (SELECT request_key, true AS approved FROM approved) USING (request_key)
WHERE was <> now
ORDER BY packs IS NOT NULL AND now > 0 DESC,
         now = 2 AND (was = 0 OR was = 1 AND approved IS NOT NULL) DESC,
         now > was DESC, now DESC, severe DESC, beyond DESC, request_key LIMIT 20;
SELECT request_id, sku, "index", asset_state, packs
FROM first_ones JOIN raw.images USING (request_key, attempt);
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
    if any(asked["replay"][what] != asked["by hand"][what] for what in ("changed", "first")):
        sys.exit("the two do not answer the same")


def ask(way: str, folder: Path) -> dict[str, Any]:
    """One of the two in this process, with two threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    with metadata_copy(folder) as copy, attached(copy, folder, read_only=True) as connection:
        connection.execute("SET threads = 2")
        if way == "replay":
            from catalog.lake import Lake

            found = replay(Lake(folder, connection), policy_from_text(POLICY))
            changed, first = found.changed, [one.request_id for one in found.first]
        else:
            first = [row[0] for row in connection.execute(BY_HAND).fetchall()]
            ((changed,),) = connection.execute("SELECT sum(images) FROM changes").fetchall()
        return {
            "seconds": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "changed": int(changed),
            "first": sorted(first),
        }


if __name__ == "__main__":
    main()
