"""Fills a real catalog with rows that no pipeline made, for the benches over millions of images.

Written in SQL into the raw tables, in order of time as batches of 64 over 299 days would be, and
merged. Of a hundred images 3 are blocked and 5 reviewed (of these half approved, a fifth rejected);
one in two hundred failed, and half of the failed were made by a later run; one in ten thousand was
made twice. `build(whole=True)` adds what audits ask of besides (bench/large_catalog_history.py).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.large_catalog_history import evidence_of, recipes, told_later  # noqa: E402
from catalog.lake import writing  # noqa: E402
from catalog.upkeep import merge_small_files  # noqa: E402
from catalog.write import register_model  # noqa: E402

if TYPE_CHECKING:
    import duckdb

BATCH = 64
CHUNK = 500_000
"""Images written at once: what memory holds beside the lists of evidence."""
_BEGAN = "(current_date - 300)::TIMESTAMPTZ"
_SECONDS = 299 * 24 * 3600
"""When the first batch was committed, and how long before the last one."""

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
_RANKED = (
    (
        "duplicate_distance",
        f"if({SCORES['duplicates', 'exact']} = 1, 0, {SCORES['duplicates', 'near']})",
    ),
    ("nearest_pdq", "256"),
    ("nearest_clip", SCORES["similarity", "nearest"]),
    ("nearest_descriptor", SCORES["copying", "descriptor@logos"]),
)
"""The columns of catalog/ranks.py."""
SIGNATURES = ("00000000000000a1", "00000000000000a2")
"""The detector of `nsfw` had other weights for the first half."""


def build(folder: Path, count: int, *, whole: bool = False) -> None:
    """A catalog of `count` images in `folder`; `whole` with evidence as the checks write it, images
    made from pictures, and all that is said of images later.
    """
    with writing(folder) as lake:
        for model in ("starter", "stable-diffusion-1.5", "sdxl"):
            register_model(lake, name=model, revision="r1", licence="Apache-2.0", source="hub")
        with lake.alone() as connection:
            connection.execute("SET threads = 2")
            _small_tables(connection, count)
            begun = time.perf_counter()
            for first in range(0, count, CHUNK):
                _images(connection, first, min(first + CHUNK, count), count, whole)
                done = min(first + CHUNK, count)
                print(f"\r{done:,} rows, {time.perf_counter() - begun:.0f} s", end="", flush=True)
            _later(connection, count)
            if whole:
                told_later(connection, count)
        merge_small_files(lake)
    print()


def _attempt(number: str) -> str:
    return (
        f"printf('%014x', 1700000000000000 + ({number})::BIGINT * 1000000) "
        f"|| substr(md5(({number})::VARCHAR), 1, 16)"
    )


def _committed(number: str, count: int) -> str:
    batches = (count + BATCH - 1) // BATCH
    return f"{_BEGAN} + INTERVAL 1 SECOND * (({number}) * {_SECONDS} // {batches})"


def _images(
    connection: duckdb.DuckDBPyConnection, first: int, end: int, count: int, whole: bool
) -> None:
    values = ", ".join(f"({value})::DOUBLE" for value in SCORES.values())
    evidence = ", ".join(
        evidence_of(check, score)
        if whole
        else f"""'{{"detector":"{check}","nearest":[{{"file":"logo-' || i % 97 || '.png"}}]}}'"""
        if check in ("similarity", "copying")
        else f"""'{{"detector":"{check}","revision":"1"}}'"""
        for (check, _), score in SCORES.items()
    )
    ranked = ", ".join(f"({value})::DOUBLE AS {name}" for name, value in _RANKED)
    made_from = recipes() if whole else "'text-to-image' AS mode, NULL AS recipe"
    connection.execute(
        f"""
        INSERT INTO raw.images BY NAME
        SELECT * EXCLUDE (i, h, failed), left(request_id, 32)::UUID AS request_key,
               CASE WHEN failed THEN NULL WHEN h < 3 THEN 'block' WHEN h < 8 THEN 'review'
                    ELSE 'pass' END AS outcome,
               CASE WHEN failed THEN 'failed' ELSE 'done' END AS state,
               CASE WHEN failed THEN 'out of memory' END AS error,
               CASE WHEN NOT failed THEN 'retail' END AS policy,
               CASE WHEN NOT failed THEN '1' END AS policy_version,
               CASE WHEN NOT failed THEN sha256('retail') END AS policy_digest,
               CASE WHEN failed THEN NULL WHEN h >= 8 THEN [] ELSE
                   [{{'outcome': if(h < 3, 'block', 'review'), 'rule': 'nsfw.concept',
                      'text': 'nsfw.concept is 0.84, review from 0.8', 'score': 0.84,
                      'bound': 0.8, 'evidence': '{{}}', 'severity': 'normal',
                      'declared': 'retail.yaml:52', 'detector': 'open-clip', 'revision': 'r1'}}]
               END AS reasons,
               CASE WHEN NOT failed THEN sha256('file' || i) END AS sha256,
               CASE WHEN failed THEN NULL WHEN h < 8 THEN 'quarantined' ELSE 'signed' END
                   AS asset_state,
               CASE WHEN NOT failed THEN 'assets/xx/' || sha256('file' || i) || '.png' END AS url,
               CASE WHEN NOT failed THEN 'image/png' END AS mime, 512 AS made_width,
               512 AS made_height, 300000 + i % 1000 AS size,
               sha256('pixels' || i) AS pixels_sha256,
               sha256('hash' || i) AS perceptual_hash,
               CASE WHEN h >= 8 AND NOT failed THEN 'urn:c2pa:' || md5(i::VARCHAR) END
                   AS c2pa_label,
               CASE WHEN h >= 8 AND NOT failed THEN 'studio' END AS certificate
        FROM (
            SELECT i, hash(i, 7) % 100 AS h, i % 200 = 100 AS failed,
                   sha256(i::VARCHAR) AS request_id, {_attempt(f"i // {BATCH}")} AS attempt,
                   'run-' || (i // 100000) AS run_id, md5((i // {BATCH})::VARCHAR) AS batch_id,
                   {_committed(f"i // {BATCH}", count)} AS recorded_at,
                   '{{"checks":9.3,"encode":3.1,"generate":' || (270 + i % 10) || ',"sign":4.2}}'
                       AS milliseconds,
                   (270 + i % 10)::DOUBLE AS generate_ms, 'SKU-' || (i // 4) AS sku,
                   i % 4 AS "index", 'campaign-' || (i // 50000) AS campaign,
                   'client-' || (i // 500000) AS client, {made_from},
                   ['starter', 'stable-diffusion-1.5', 'sdxl'][1 + (i // 5000) % 3] AS model,
                   'r1' AS model_revision,
                   'a ' || ['red', 'blue', 'green'][1 + i % 3] || ' mug number ' || (i // 100)
                       AS prompt,
                   sha256((i // 100)::VARCHAR) AS prompt_sha256, '' AS negative_prompt,
                   i AS seed, 512 AS width, 512 AS height, 20 AS steps, 3.0 AS guidance,
                   'ddim' AS scheduler,
                   CASE WHEN i % 3 = 0 THEN
                       '{{"id":"t","licensor":"Studio","channels":["web","print"]}}'
                       ELSE '{{"id":"a","licensor":"Studio","channels":["amazon"]}}' END AS terms,
                   if(i % 3 = 0, 't', 'a') AS terms_id,
                   current_date - 30 + (i // 50000)::INTEGER * 7 AS expires,
                   if(i < {count // 2}, '{SIGNATURES[0]}', '{SIGNATURES[1]}') AS signature,
                   [{values}] AS "values", [{evidence}] AS evidence, {ranked},
                   if(NOT failed AND h BETWEEN 3 AND 7, 2, 0) AS urgency
            FROM range({first}, {end}) AS t(i))
        """
    )


def _small_tables(connection: duckdb.DuckDBPyConnection, count: int) -> None:
    for number, signature in enumerate(SIGNATURES):
        scores = ", ".join(
            f"{{'check_name': '{check}', 'name': '{name}', 'detector': '{check}', "
            f"'revision': '{number if check == 'nsfw' else 1}'}}"
            for check, name in SCORES
        )
        connection.execute(f"INSERT INTO raw.signatures VALUES ('{signature}', [{scores}])")
    connection.execute(
        f"""
        INSERT INTO raw.batches BY NAME
        SELECT 'run-' || (b * {BATCH} // 100000) AS run_id, md5(b::VARCHAR) AS batch_id,
               {_attempt("b")} AS attempt, least({BATCH}, {count} - b * {BATCH}) AS images,
               0 AS failed, {_committed("b", count)} AS committed_at
        FROM range(({count} + {BATCH - 1}) // {BATCH}) AS t(b)
        """
    )
    connection.execute(
        f"""
        INSERT INTO raw.runs BY NAME
        SELECT 'run-' || r AS run_id,
               {_committed(f"r * 100000 // {BATCH}", count)} AS started_at,
               'studio' AS host, 'cuda' AS device, '{{"python":"3.11"}}' AS versions,
               'spring-' || r || '.yaml' AS brief, sha256(r::VARCHAR) AS brief_sha256,
               'retail' AS policy, '1' AS policy_version, sha256('retail') AS policy_digest,
               100000 AS requested
        FROM range(({count} + 99999) // 100000) AS t(r)
        """
    )


def _later(connection: duckdb.DuckDBPyConnection, count: int) -> None:
    """What was made again or twice; reviews, files of approved images, packs."""
    last = (count + BATCH - 1) // BATCH
    connection.execute(
        f"""
        INSERT INTO raw.images BY NAME
        SELECT * REPLACE ({_attempt(str(last))} AS attempt, 'run-again' AS run_id,
                          'again' AS batch_id, 'done' AS state, NULL AS error,
                          {_committed(f"{last}::BIGINT", count)} AS recorded_at,
                          'pass' AS outcome, 0 AS urgency, [] AS reasons, 'signed' AS asset_state,
                          sha256('again' || seed) AS sha256,
                          'urn:c2pa:' || md5('again' || seed) AS c2pa_label)
        FROM raw.images WHERE (state = 'failed' AND seed % 400 = 100) OR seed % 10000 = 1
        """
    )
    connection.execute(
        f"INSERT INTO raw.batches BY NAME SELECT 'run-again' AS run_id, 'again' AS batch_id, "
        f"{_attempt(str(last))} AS attempt, count(*) AS images, 0 AS failed, "
        "max(recorded_at) AS committed_at FROM raw.images WHERE batch_id = 'again'"
    )
    connection.execute(
        """
        INSERT INTO raw.reviews BY NAME
        SELECT md5(request_id) AS review_id, request_id, attempt,
               if(seed % 10 < 5, 'approve', 'reject') AS decision,
               ['ann', 'bob', 'eve'][1 + seed % 3] AS reviewer, 'looked at' AS reason,
               recorded_at + INTERVAL 1 DAY AS decided_at, sha256('signed' || seed) AS asset_sha256,
               ['nsfw.concept'] AS rules
        FROM raw.images WHERE outcome = 'review' AND seed % 10 < 7
        """
    )
    connection.execute(
        """
        INSERT INTO raw.later_files BY NAME
        SELECT request_id, attempt, 'review' AS made_by, sha256('signed' || seed) AS sha256,
               'signed' AS state, 'assets/xx/' || sha256('signed' || seed) || '.png' AS url, mime,
               made_width AS width, made_height AS height, size, pixels_sha256, perceptual_hash,
               'urn:c2pa:' || md5('signed' || seed) AS c2pa_label, 'studio' AS certificate,
               recorded_at + INTERVAL 1 DAY AS recorded_at
        FROM raw.images WHERE outcome = 'review' AND seed % 10 < 5
        """
    )
    connection.execute(
        """
        INSERT INTO raw.pack_assets BY NAME
        SELECT 'pack-' || (seed // 20000) AS pack_id, request_id, sha256 AS asset_sha256,
               sku || '.png' AS file
        FROM raw.images WHERE asset_state = 'signed' AND seed % 20000 < 1000
        """
    )
    connection.execute(
        """
        INSERT INTO raw.packs BY NAME
        SELECT pack_id, pack_id || '.zip' AS file, sha256(pack_id) AS sha256, 1000 AS size,
               count(*) AS images, 0 AS left_out, 'true' AS "where", '{"id":"t"}' AS terms,
               't' AS terms_id, 'Shop' AS licensee, current_date + 30 AS expires,
               now() - INTERVAL 1 DAY AS created_at
        FROM raw.pack_assets GROUP BY pack_id
        """
    )
