-- What is in a pack, and what was asked for but left out, with the reason
-- $pack: the pack's id, its file name, or the first digits of its SHA-256
WITH meant AS (
    SELECT pack_id FROM packs
    WHERE pack_id = $pack OR file = $pack
       OR (length($pack) >= 6 AND starts_with(sha256, lower($pack))))
SELECT p.pack_id, 'in' AS place, a.file, i.sku, i."index", i.outcome, i.decision, i.reviewer,
       i.terms_id, i.expires, NULL AS reason, a.asset_sha256 AS sha256, a.request_id
FROM pack_assets AS a SEMI JOIN meant USING (pack_id)
JOIN packs AS p USING (pack_id) LEFT JOIN images AS i USING (request_id)
UNION ALL
SELECT f.pack_id, 'left out', NULL, f.sku, i."index", i.outcome, i.decision, i.reviewer,
       i.terms_id, i.expires, f.reason, i.sha256, f.request_id
FROM pack_refusals AS f SEMI JOIN meant USING (pack_id) LEFT JOIN images AS i USING (request_id)
ORDER BY 1, 2, 4, 5
