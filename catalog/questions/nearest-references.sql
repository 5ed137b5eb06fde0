-- The images nearest to a reference, by each signal, with the reference's title and whose it is
-- $library = "": only this library, among the 5,000 images nearest to any
-- $limit = 10: how many by each signal, 5,000 at most
-- Some more than asked for, since those that were erased have lost their evidence.
WITH wanted AS (
    SELECT if($library = '', least($limit::BIGINT + count(*), 5000), 5000) AS most
    FROM raw.ledger_erasures),
-- As the runs measured it: to leave out first what was measured again takes five times as long.
-- PDQ is a distance: the least is the nearest.
first AS (
    (SELECT 'clip' AS signal, request_key, attempt, nearest_clip AS nearness
     FROM raw.images WHERE nearest_clip > -1 ORDER BY nearest_clip DESC LIMIT 10000)
    UNION ALL
    (SELECT 'descriptor', request_key, attempt, nearest_descriptor
     FROM raw.images WHERE nearest_descriptor > -1 ORDER BY nearest_descriptor DESC LIMIT 10000)
    UNION ALL
    (SELECT 'pdq', request_key, attempt, -nearest_pdq
     FROM raw.images WHERE nearest_pdq < 256 ORDER BY nearest_pdq LIMIT 10000)),
outdated AS MATERIALIZED (FROM raw.outdated),
holding AS (FROM first ANTI JOIN outdated USING (request_key, attempt)),
-- Signals of which so many were measured again that others may be nearer: all images are asked.
lacking AS (
    SELECT f.signal
    FROM (SELECT signal, count(*) AS rows FROM first GROUP BY signal) AS f
    LEFT JOIN (SELECT signal, count(*) AS rows FROM holding GROUP BY signal) AS h USING (signal)
    WHERE f.rows = 10000 AND coalesce(h.rows, 0) < (SELECT most FROM wanted)),
nearest AS (
    SELECT signal, request_key, attempt FROM (
        FROM holding ANTI JOIN lacking USING (signal)
        UNION ALL
        SELECT unnest([struct_pack(signal := 'clip', request_key, attempt,
                                   nearness := nearest_clip),
                       struct_pack(signal := 'descriptor', request_key, attempt,
                                   nearness := nearest_descriptor),
                       struct_pack(signal := 'pdq', request_key, attempt,
                                   nearness := -nearest_pdq)], recursive := true)
        FROM raw.ranked_otherwise
        UNION ALL
        SELECT signal, request_key, attempt,
               CASE signal WHEN 'clip' THEN nearest_clip
                    WHEN 'descriptor' THEN nearest_descriptor ELSE -nearest_pdq END
        FROM (FROM raw.images, lacking WHERE duplicate_distance IS NOT NULL)
        ANTI JOIN outdated USING (request_key, attempt))
    QUALIFY row_number() OVER (PARTITION BY signal ORDER BY nearness DESC, attempt DESC)
            <= (SELECT most FROM wanted)),
found AS (
    SELECT request_id, request_key, attempt, signature, "values", evidence
    FROM raw.images SEMI JOIN nearest USING (request_key, attempt)),
again AS (
    SELECT request_id, attempt, arg_max(signature, measured_at) AS signature,
           arg_max("values", measured_at) AS "values",
           arg_max(evidence, measured_at) AS evidence
    FROM raw.rescored SEMI JOIN found USING (request_id, attempt) GROUP BY request_id, attempt),
measured AS (
    SELECT request_key, attempt, coalesce(a.signature, f.signature) AS signature,
           coalesce(a."values", f."values") AS "values", coalesce(a.evidence, f.evidence) AS evidence
    FROM found AS f LEFT JOIN again AS a USING (request_id, attempt)),
near AS (
    SELECT request_key, attempt, signal, p.check_name || '.' || p.name AS score,
           m."values"[p.place] AS value, if(signal = 'pdq', -value, value) AS nearness,
           m.evidence[p.place] -> '$.nearest[0]' AS nearest
    FROM measured AS m JOIN raw.score_places AS p USING (signature)
         JOIN nearest USING (request_key, attempt, signal)
    WHERE NOT isnan(m."values"[p.place]) AND (m.evidence[p.place] -> '$.nearest[0]') IS NOT NULL
      AND ($library = '' OR (m.evidence[p.place] ->> '$.nearest[0].library') = $library)
    QUALIFY row_number() OVER (
        PARTITION BY request_key, signal ORDER BY nearness DESC, score) = 1)
SELECT i.sku, i."index", i.outcome, n.score, n.value, n.nearest ->> 'library' AS library,
       n.nearest ->> 'file' AS file, n.nearest ->> 'title' AS title,
       n.nearest ->> 'rights_holder' AS rights_holder, n.nearest ->> 'licence' AS licence,
       n.nearest ->> 'sha256' AS reference_sha256, i.request_id, i.sha256
FROM near AS n JOIN (
    SELECT request_key, attempt, request_id, sku, "index", outcome, sha256
    FROM raw.counted SEMI JOIN nearest USING (request_key, attempt)) AS i
    USING (request_key, attempt)
QUALIFY row_number() OVER (PARTITION BY n.signal ORDER BY n.nearness DESC, i.request_id) <= $limit
ORDER BY n.signal, n.nearness DESC, i.sku, i."index"
