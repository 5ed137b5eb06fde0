-- What is in a pack, and what was asked for but left out, with the reason
-- $pack: the pack's id, its file name, or the first digits of its SHA-256
-- $limit = 10000: at most so many
WITH meant AS (
    SELECT pack_id FROM packs
    WHERE pack_id = $pack OR file = $pack
       OR (length($pack) >= 6 AND starts_with(sha256, lower($pack)))),
said AS (
    SELECT pack_id, 'in' AS place, file, NULL AS reason, asset_sha256, request_id, NULL AS sku
    FROM pack_assets SEMI JOIN meant USING (pack_id)
    UNION ALL
    SELECT pack_id, 'left out', NULL, reason, NULL, request_id, sku
    FROM pack_refusals SEMI JOIN meant USING (pack_id)),
told AS (
    SELECT *, left(request_id, 32)::UUID AS request_key
    FROM (FROM said ORDER BY pack_id, place, file, request_id LIMIT $limit)),
tried AS (SELECT request_key, attempt FROM raw.images SEMI JOIN told USING (request_key))
SELECT s.pack_id, s.place, s.file, s.reason, coalesce(i.sku, s.sku) AS sku, i."index", i.outcome,
       i.decision, i.reviewer, i.terms_id, i.expires,
       coalesce(s.asset_sha256, i.sha256) AS sha256, s.request_id
FROM told AS s LEFT JOIN (
    SELECT request_key, sku, "index", outcome, decision, reviewer, terms_id, expires, sha256
    FROM raw.counted SEMI JOIN tried USING (request_key, attempt)) AS i USING (request_key)
ORDER BY s.pack_id, s.place, sku, i."index"
