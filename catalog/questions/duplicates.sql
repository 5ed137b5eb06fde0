-- Images that are the same as, or nearly the same as, an earlier one (by the check on duplicates)
-- $distance = 16: largest Hamming distance of the perceptual hashes, of 256 bits
-- $limit = 1000: at most so many
WITH near AS (
    SELECT request_id, name AS kind, CASE name WHEN 'exact' THEN 0 ELSE value END AS distance,
           coalesce(evidence ->> '$.duplicate_of.request_id',
                    (evidence ->> '$.nearest.request_id')) AS earlier
    FROM scores
    WHERE check_name = 'duplicates'
      AND ((name = 'exact' AND value = 1) OR (name = 'near' AND value <= $distance))
    ORDER BY distance, request_id, kind LIMIT $limit),
told AS (
    SELECT request_id, sku, "index", campaign, outcome, sha256 FROM images
    WHERE request_id IN (SELECT request_id FROM near UNION ALL SELECT earlier FROM near))
SELECT i.sku, i."index", i.campaign, n.kind, n.distance, e.sku AS earlier_sku,
       e."index" AS earlier_index, i.outcome, e.outcome AS earlier_outcome, i.sha256,
       e.sha256 AS earlier_sha256, n.request_id, n.earlier AS earlier_request_id
FROM near AS n
JOIN told AS i USING (request_id)
LEFT JOIN told AS e ON e.request_id = n.earlier
ORDER BY n.distance, i.sku, i."index", n.kind
