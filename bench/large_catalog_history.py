"""What audits ask of beside the images themselves, for the large catalog of bench/large_catalog.py.

In its SQL `i` is an image's number, which raw.images has as `seed`. One image in twenty was made
from a picture with an adapter; one in a hundred was judged again by a replay, one was measured
again, and one has new terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

ADAPTERS = 10
PHOTOS = 5_000
WORKS = 10_000
"""Works in each of the two reference libraries."""


def evidence_of(check: str, score: str) -> str:
    """SQL of a score's evidence as the checks write it: each image has its own."""
    if check in ("similarity", "copying"):
        return f"""'{{"detector":"{check}","library_sizes":{{"logos":{WORKS}}},"nearest":[{{'
            || '"library":"logos","file":"logo-' || i % {WORKS} || '.png","title":"Logo '
            || i % {WORKS} || '","rights_holder":"Rival","licence":"all rights reserved",'
            || '"sha256":"' || sha256((i % {WORKS})::VARCHAR) || '","similarity":'
            || round({score}, 4) || '}}],"own":[],"revision":"1"}}'"""
    if check == "duplicates":
        return """'{"detector":"pdq","nearest":{"request_id":"'
            || sha256((i - 4 * (1 + hash(i) % 1000))::VARCHAR) || '","sku":"SKU-' || i // 4 - 1
            || '"},"quality":' || hash(i, 9) % 100 || ',"revision":"1"}'"""
    return f"""'{{"detector":"{check}","revision":"1"}}'"""


def recipes() -> str:
    """SQL of the columns `mode` and `recipe`."""
    return f"""
        if(i % 20 = 3, 'image-to-image', 'text-to-image') AS mode,
        CASE WHEN i % 20 = 3 THEN
            '{{"adapters":[{{"file":"","model":"brand-' || i % {ADAPTERS * 100} // 100
            || '","model_revision":"a1","token":"","weight":0.8}}],"inputs":[{{"name":"photo-'
            || i // 20 % {PHOTOS} || '.jpg","role":"image","sha256":"'
            || sha256('photo' || i // 20 % {PHOTOS}) || '","source":"file"}}],"strength":0.6}}'
        END AS recipe"""


def told_later(connection: duckdb.DuckDBPyConnection, count: int) -> None:
    """Fills the tables that stand beside the images."""
    for sql in (*_PARTS, *_LATER, *_SOLD, *_VERIFIED):
        connection.execute(sql.format(adapters=ADAPTERS, photos=PHOTOS, works=WORKS, count=count))


_PARTS = (
    """
    INSERT INTO raw.models BY NAME
    SELECT 'brand-' || a AS name, 'a1' AS revision, 'CC-BY-4.0' AS licence, 'folder' AS source,
           '{{}}' AS details, now() AS registered_at
    FROM range({adapters}) AS t(a)
    """,
    """
    INSERT INTO raw.training_images BY NAME
    SELECT 'brand-' || (t // 40) AS adapter, 'a1' AS revision, 'one-' || t || '.png' AS file,
           sha256('trained' || t) AS sha256, 'Mug ' || t AS title, 'Studio' AS rights_holder,
           'own' AS licence, now() AS registered_at
    FROM range({adapters} * 40) AS t(t)
    """,
    """
    INSERT INTO raw.inputs BY NAME
    SELECT request_id, attempt, 0 AS step, 'image' AS role,
           if(seed % 200 = 3, 'asset', 'file') AS source,
           if(seed % 200 = 3, sku, 'photo-' || seed // 20 % {photos} || '.jpg') AS name,
           if(seed % 200 = 3, sha256('file' || (seed - 60)),
              sha256('photo' || seed // 20 % {photos})) AS sha256,
           'image/jpeg' AS mime, if(seed % 200 = 3, sha256((seed - 60)::VARCHAR), NULL)
               AS source_request_id,
           if(seed % 200 = 3, 'Trusted', 'None') AS c2pa_state, []::VARCHAR[] AS restrictions
    FROM raw.images WHERE recipe IS NOT NULL
    """,
    """
    INSERT INTO raw.input_licences BY NAME
    SELECT sha256('photo' || p) AS sha256, 'CC-BY-4.0' AS licence, 'Ada' AS credit,
           'xmpRights' AS says, now() AS registered_at
    FROM range({photos}) AS t(p) WHERE p % 2 = 0
    """,
    """
    INSERT INTO raw.libraries BY NAME
    SELECT unnest(['logos', 'own']) AS library, 'for the bench' AS note, now() AS created_at
    """,
    """
    INSERT INTO raw.library_works BY NAME
    SELECT library, w AS work_id, sha256(w::VARCHAR) AS sha256, 'logo-' || w || '.png' AS file,
           'Logo ' || w AS title, 'Rival' AS rights_holder, 'all rights reserved' AS licence,
           if(library = 'own', 'own', 'protected') AS role, now() AS added_at
    FROM raw.libraries, range({works}) AS t(w)
    """,
    """
    INSERT INTO raw.run_ends BY NAME
    SELECT run_id, 'completed' AS status, started_at + INTERVAL 1 HOUR AS finished_at FROM raw.runs
    """,
    """
    INSERT INTO raw.refused_items BY NAME
    SELECT run_id, 'SKU-X' || n AS sku, 'items.csv:' || n AS place, 'no prompt' AS fault,
           'write one' AS remedy, started_at AS refused_at
    FROM raw.runs, range(100) AS t(n)
    """,
)
_LATER = (
    """
    INSERT INTO raw.reviews BY NAME
    SELECT md5(review_id) AS review_id, request_id, attempt,
           if(decision = 'approve', 'reject', 'approve') AS decision, 'zoe' AS reviewer,
           'on second thoughts' AS reason, decided_at + INTERVAL 1 HOUR AS decided_at,
           asset_sha256, rules
    FROM raw.reviews WHERE hash(request_id) % 50 = 0
    """,
    """
    INSERT INTO raw.replays
    SELECT 'replay-' || n, 'retail', (n + 2)::VARCHAR, sha256('retail' || n), 'true', {count},
           {count} // 200, 'eve', now() - INTERVAL 2 DAY + INTERVAL 1 HOUR * n
    FROM range(2) AS t(n)
    """,
    """
    INSERT INTO raw.replayed_verdicts BY NAME
    SELECT r.replay_id, i.request_id, i.attempt, if(seed % 3 = 0, 'pass', 'review') AS outcome,
           r.policy, r.policy_version, r.policy_digest,
           if(seed % 3 = 0, [], [{{'outcome': 'review', 'rule': 'similarity.nearest',
               'text': 'similarity.nearest is 0.89, review from 0.88', 'score': 0.89,
               'bound': 0.88, 'evidence': '{{}}', 'severity': 'high', 'declared': 'retail.yaml:9',
               'detector': 'open-clip', 'revision': 'r1'}}]) AS reasons,
           r.applied_at AS decided_at
    FROM raw.images AS i JOIN raw.replays AS r ON r.replay_id = 'replay-' || (seed % 200 - 20)
    WHERE i.state = 'done' AND seed % 200 IN (20, 21)
    """,
    """
    INSERT INTO raw.rescored BY NAME
    SELECT request_id, attempt, signature,
           list_transform("values", lambda one, n: if(n = 1, one / 2, one)) AS "values",
           evidence, duplicate_distance, nearest_pdq, nearest_clip, nearest_descriptor,
           now() - INTERVAL 3 DAY AS measured_at
    FROM raw.images WHERE state = 'done' AND seed % 100 = 30
    """,
    """
    INSERT INTO raw.terms BY NAME
    SELECT request_id, '{{"id":"n","licensor":"Studio","channels":["web"]}}' AS terms,
           'n' AS terms_id, current_date + 10 AS expires, now() - INTERVAL 4 DAY AS recorded_at
    FROM raw.images WHERE seed % 100 = 40
    """,
)
_SOLD = (
    """
    INSERT INTO raw.manifests BY NAME
    SELECT request_id, attempt, sha256 AS asset_sha256, c2pa_label AS label, certificate,
           repeat('manifest', 25)::BLOB AS manifest, recorded_at
    FROM raw.images WHERE c2pa_label IS NOT NULL
    """,
    """
    INSERT INTO raw.pack_refusals BY NAME
    SELECT p.pack_id, p.created_at, sha256((p.n * 20000 + r)::VARCHAR) AS request_id,
           'SKU-' || (p.n * 20000 + r) // 4 AS sku, 'its terms do not cover the channel' AS reason
    FROM (SELECT *, split_part(pack_id, '-', 2)::BIGINT AS n FROM raw.packs) AS p,
         range(1000, 1020) AS t(r)
    """,
    """
    INSERT INTO raw.revocations BY NAME
    SELECT md5(pack_id) AS revocation_id, 'pack' AS kind, pack_id, 'recalled' AS reason,
           'ann' AS revoked_by, now() AS revoked_at
    FROM raw.packs WHERE hash(pack_id) % 20 = 0
    """,
)
_VERIFIED = (
    """
    INSERT INTO raw.verifications
    SELECT sha256('file' || i), if(v = 2 AND i % 10000 = 700, 'Invalid', 'Trusted'), true, 'own',
           'c2pa-rs 0.9' || v, now() - INTERVAL 1 DAY * (3 - v)
    FROM range(0, {count}, 100) AS t(i), range(1, 3) AS u(v)
    """,
    """
    INSERT INTO raw.stamps_owed
    SELECT sha256, recorded_at FROM raw.images WHERE c2pa_label IS NOT NULL AND seed % 200 = 50
    """,
    """
    INSERT INTO raw.stamps
    SELECT sha256, request_id, sha256('stamped' || seed), 'http://tsa.example', now()
    FROM raw.images WHERE c2pa_label IS NOT NULL AND seed % 1000 BETWEEN 50 AND 800
                      AND seed % 200 = 50
    """,
)
