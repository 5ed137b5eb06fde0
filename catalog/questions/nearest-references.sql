-- The nearest reference of each image by each signal, nearest first, with its title and whose it is
-- $library = "": only this library
-- $limit = 100: how many
WITH places AS (
    SELECT signature, check_name || '.' || name AS score, place,
           starts_with(name, 'pdq') AS is_distance
    FROM raw.score_places
    WHERE check_name IN ('similarity', 'copying') AND NOT starts_with(name, 'concept')
      AND ($library = '' OR NOT contains(name, '@') OR ends_with(name, '@' || $library))),
measured AS (
    SELECT r.request_key, r.attempt, r.request_id, a.attempt IS NOT NULL AS again,
           coalesce(a.signature, r.signature) AS signature,
           coalesce(a."values", r."values") AS "values"
    FROM (FROM raw.images ANTI JOIN raw.superseded USING (request_key, attempt)) AS r
    LEFT JOIN raw.latest_rescored AS a USING (request_key, attempt)),
valued AS (
    SELECT m.request_key, m.attempt, m.request_id, m.again, p.score, p.place,
           m."values"[p.place] AS value, p.is_distance,
           -- PDQ is a distance: the least is the nearest.
           if(p.is_distance, -value, value) AS nearness
    FROM measured AS m JOIN places AS p USING (signature)),
-- The farthest there is stands for no work at all, and what is no number is not near.
found AS (
    FROM valued
    WHERE NOT isnan(value) AND nearness > if(is_distance, -256, -1)
    ORDER BY score, nearness DESC, request_id
    -- Fifty more, since some may have lost their evidence to an erasure.
    LIMIT if($library = '', $limit::BIGINT + 50, 4611686018427387903)),
near AS (
    SELECT f.request_key, f.request_id, f.score, f.value, f.nearness,
           e.evidence[f.place] -> '$.nearest[0]' AS nearest
    FROM found AS f JOIN (
        SELECT request_key, attempt, false AS again, evidence
        FROM raw.images SEMI JOIN found USING (request_key, attempt)
        UNION ALL
        SELECT request_key, attempt, true, evidence
        FROM raw.latest_rescored SEMI JOIN found USING (request_key, attempt)) AS e
        USING (request_key, attempt, again)
    WHERE (e.evidence[f.place] -> '$.nearest[0]') IS NOT NULL
      AND ($library = '' OR (e.evidence[f.place] ->> '$.nearest[0].library') = $library)
    ORDER BY f.score, f.nearness DESC, f.request_id LIMIT $limit),
tried AS (SELECT request_key, attempt FROM raw.images SEMI JOIN near USING (request_key))
SELECT i.sku, i."index", i.outcome, n.score, n.value, n.nearest ->> 'library' AS library,
       n.nearest ->> 'file' AS file, n.nearest ->> 'title' AS title,
       n.nearest ->> 'rights_holder' AS rights_holder, n.nearest ->> 'licence' AS licence,
       n.nearest ->> 'sha256' AS reference_sha256, n.request_id, i.sha256
FROM near AS n JOIN (
    SELECT request_key, sku, "index", outcome, sha256
    FROM raw.counted SEMI JOIN tried USING (request_key, attempt)) AS i USING (request_key)
ORDER BY n.score, n.nearness DESC, i.sku, i."index"
