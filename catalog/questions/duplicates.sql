-- Images that are the same as, or nearly the same as, an earlier one (by the check on duplicates)
-- $distance = 16: largest Hamming distance of the perceptual hashes, of 256 bits
-- $limit = 100: at most so many
-- Attempts sort by time.
WITH nearest AS (
    SELECT request_key, attempt, again, duplicate_distance AS distance FROM raw.ranked
    WHERE duplicate_distance <= $distance
    ORDER BY distance, attempt DESC, request_key LIMIT $limit),
found AS (
    SELECT r.request_id, request_key, attempt, n.again, n.distance, r.signature, r."values",
           r.evidence
    FROM raw.images AS r JOIN nearest AS n USING (request_key, attempt)),
measured AS (
    SELECT request_id, request_key, distance, signature, "values", evidence
    FROM found WHERE NOT again
    UNION ALL
    SELECT f.request_id, f.request_key, f.distance, a.signature, a."values", a.evidence
    FROM found AS f JOIN (
        SELECT request_id, attempt, arg_max(signature, measured_at) AS signature,
               arg_max("values", measured_at) AS "values",
               arg_max(evidence, measured_at) AS evidence
        FROM raw.rescored SEMI JOIN (FROM found WHERE again) USING (request_id, attempt)
        GROUP BY request_id, attempt) AS a USING (request_id, attempt)),
told AS (
    SELECT m.*, if(m."values"[p.exact] = 1, 'exact', 'near') AS kind,
           if(kind = 'exact', m.evidence[p.exact] ->> '$.duplicate_of.request_id',
              m.evidence[p.near] ->> '$.nearest.request_id') AS earlier
    FROM measured AS m JOIN (
        SELECT signature, max(place) FILTER (name = 'exact') AS exact,
               max(place) FILTER (name = 'near') AS near
        FROM raw.score_places WHERE check_name = 'duplicates' GROUP BY signature) AS p
        USING (signature)),
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
ORDER BY n.distance, i.sku, i."index"
