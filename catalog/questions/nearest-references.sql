-- The images nearest to a reference, by each signal, with the reference's title and whose it is
-- $library = "": only this library, among the 5,000 images nearest to any
-- $limit = 10: how many by each signal
WITH places AS (
    SELECT signature, check_name || '.' || name AS score, place,
           starts_with(name, 'pdq') AS is_distance
    FROM raw.score_places
    WHERE check_name IN ('similarity', 'copying') AND NOT starts_with(name, 'concept')
      AND ($library = '' OR NOT contains(name, '@') OR ends_with(name, '@' || $library))),
measured AS (
    SELECT request_key, signature, "values"
    FROM raw.images ANTI JOIN raw.latest_rescored USING (request_key, attempt)
         ANTI JOIN raw.superseded USING (request_key, attempt)
    UNION ALL
    SELECT request_key, signature, "values"
    FROM raw.latest_rescored ANTI JOIN raw.superseded USING (request_key, attempt)),
valued AS (
    SELECT m.request_key, m.signature, p.place,
           -- PDQ is a distance: the least is the nearest.
           if(p.is_distance, -m."values"[p.place], m."values"[p.place]) AS nearness
    FROM measured AS m JOIN places AS p USING (signature)
    -- The farthest there is stands for no work at all, and what is no number is not near.
    WHERE NOT isnan(m."values"[p.place]) AND nearness > if(p.is_distance, -256, -1)),
-- Five more than asked for, since some may have lost their evidence to an erasure.
found AS (
    SELECT request_key, place
    FROM (SELECT signature, place,
                 unnest(arg_max(request_key, nearness, most)) AS request_key,
                 unnest(max(nearness, most)) AS nearness
          FROM (SELECT *, if($library = '', $limit::BIGINT + 5, 5000) AS most FROM valued)
          GROUP BY signature, place) AS v JOIN places AS p USING (signature, place)
    QUALIFY row_number() OVER (PARTITION BY p.score ORDER BY v.nearness DESC)
            <= if($library = '', $limit::BIGINT + 5, 5000)),
tried AS (
    SELECT request_key, attempt FROM raw.images SEMI JOIN found USING (request_key)),
told AS (
    SELECT request_key, attempt, signature, "values", evidence
    FROM raw.images SEMI JOIN tried USING (request_key, attempt)
         ANTI JOIN raw.latest_rescored USING (request_key, attempt)
    UNION ALL
    SELECT request_key, attempt, signature, "values", evidence
    FROM raw.latest_rescored SEMI JOIN tried USING (request_key, attempt)),
near AS (
    SELECT t.request_key, t.attempt, p.score, t."values"[p.place] AS value,
           if(p.is_distance, -value, value) AS nearness,
           t.evidence[p.place] -> '$.nearest[0]' AS nearest
    FROM told AS t JOIN places AS p USING (signature)
         SEMI JOIN found ON found.request_key = t.request_key AND found.place = p.place
    WHERE (t.evidence[p.place] -> '$.nearest[0]') IS NOT NULL
      AND ($library = '' OR (t.evidence[p.place] ->> '$.nearest[0].library') = $library))
SELECT i.sku, i."index", i.outcome, n.score, n.value, n.nearest ->> 'library' AS library,
       n.nearest ->> 'file' AS file, n.nearest ->> 'title' AS title,
       n.nearest ->> 'rights_holder' AS rights_holder, n.nearest ->> 'licence' AS licence,
       n.nearest ->> 'sha256' AS reference_sha256, i.request_id, i.sha256
FROM near AS n JOIN (
    SELECT request_key, attempt, request_id, sku, "index", outcome, sha256
    FROM raw.counted SEMI JOIN tried USING (request_key, attempt)) AS i
    USING (request_key, attempt)
QUALIFY row_number() OVER (PARTITION BY n.score ORDER BY n.nearness DESC, i.request_id) <= $limit
ORDER BY n.score, n.nearness DESC, i.sku, i."index"
