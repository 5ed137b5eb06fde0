-- Images that are the same as, or nearly the same as, an earlier one (by the check on duplicates)
-- $distance = 16: largest Hamming distance of the perceptual hashes, of 256 bits
SELECT i.sku, i."index", i.campaign, s.name AS kind,
       CASE s.name WHEN 'exact' THEN 0 ELSE s.value END AS distance,
       e.sku AS earlier_sku, e."index" AS earlier_index, i.outcome, e.outcome AS earlier_outcome,
       i.sha256, e.sha256 AS earlier_sha256, i.request_id, e.request_id AS earlier_request_id
FROM scores AS s
JOIN images AS i USING (request_id)
LEFT JOIN images AS e ON e.request_id = coalesce(s.evidence ->> '$.duplicate_of.request_id',
                                                 (s.evidence ->> '$.nearest.request_id'))
WHERE s.check_name = 'duplicates'
  AND ((s.name = 'exact' AND s.value = 1) OR (s.name = 'near' AND s.value <= $distance))
ORDER BY distance, i.sku, i."index", kind
