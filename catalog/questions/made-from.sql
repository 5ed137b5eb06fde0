-- What an image was made from: its inputs and intermediates, step by step, and their credentials
-- $asset: sku, or the first digits of the SHA-256 or of the request id
WITH meant AS (
    SELECT request_id FROM requests WHERE sku = $asset OR starts_with(request_id, lower($asset))
    UNION
    SELECT request_id FROM assets WHERE starts_with(sha256, lower($asset)))
SELECT r.sku, r."index", f.step, f.role, f.source, f.name, f.sha256, f.c2pa_state, f.restrictions,
       f.source_request_id, f.request_id
FROM inputs AS f JOIN requests AS r USING (request_id)
WHERE f.request_id IN (SELECT request_id FROM meant)
ORDER BY r.sku, r."index", f.request_id, f.step, f.role
