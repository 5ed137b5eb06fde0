-- Images that are the same as, or nearly the same as, an earlier one (by the check on duplicates)
-- $distance = 16: largest Hamming distance of the perceptual hashes, of 256 bits
-- $limit = 100: at most so many
WITH places AS (
    SELECT signature, max(place) FILTER (name = 'exact') AS exact,
           max(place) FILTER (name = 'near') AS near
    FROM raw.score_places WHERE check_name = 'duplicates' GROUP BY signature),
measured AS (
    SELECT request_key, attempt, false AS again, signature, "values"
    FROM raw.images ANTI JOIN raw.latest_rescored USING (request_key, attempt)
         ANTI JOIN raw.superseded USING (request_key, attempt)
    UNION ALL
    SELECT request_key, attempt, true, signature, "values"
    FROM raw.latest_rescored ANTI JOIN raw.superseded USING (request_key, attempt)),
near AS (
    SELECT * EXCLUDE (exact, near),
           unnest([struct_pack(kind := 'exact', place := exact, distance := 0.0),
                   struct_pack(kind := 'near', place := near, distance := "values"[near])],
                  recursive := true)
    FROM measured JOIN places USING (signature)
    WHERE "values"[exact] = 1 OR "values"[near] <= $distance),
-- Attempts sort by time.
nearest AS (
    SELECT request_key, attempt, again, kind, place, distance FROM near
    WHERE CASE kind WHEN 'exact' THEN "values"[place] = 1 ELSE distance <= $distance END
    ORDER BY distance, attempt DESC, request_key, kind LIMIT $limit),
shown AS (
    SELECT e.request_id, n.request_key, n.kind, n.distance, e.evidence[n.place] AS evidence
    FROM nearest AS n JOIN (
        SELECT request_id, request_key, attempt, false AS again, evidence
        FROM raw.images SEMI JOIN nearest USING (request_key, attempt)
        UNION ALL
        SELECT request_id, request_key, attempt, true, evidence
        FROM raw.latest_rescored SEMI JOIN nearest USING (request_key, attempt)) AS e
        USING (request_key, attempt, again)),
told AS (
    SELECT *, coalesce(evidence ->> '$.duplicate_of.request_id',
                       evidence ->> '$.nearest.request_id') AS earlier
    FROM shown),
tried AS (
    SELECT request_key, attempt FROM raw.images SEMI JOIN (
        SELECT request_key FROM told UNION SELECT TRY_CAST(left(earlier, 32) AS UUID) FROM told)
        USING (request_key)),
seen AS (
    SELECT request_id, sku, "index", campaign, outcome, sha256
    FROM raw.counted SEMI JOIN tried USING (request_key, attempt))
SELECT i.sku, i."index", i.campaign, n.kind, n.distance, e.sku AS earlier_sku,
       e."index" AS earlier_index, i.outcome, e.outcome AS earlier_outcome, i.sha256,
       e.sha256 AS earlier_sha256, n.request_id, n.earlier AS earlier_request_id
FROM told AS n
JOIN seen AS i USING (request_id)
LEFT JOIN seen AS e ON e.request_id = n.earlier
ORDER BY n.distance, i.sku, i."index", n.kind
