-- What an image was made from: its inputs and intermediates, step by step, and their credentials
-- $asset: sku, or the first digits of the SHA-256 or of the request id
SELECT i.sku, i."index", f.step, f.role, f.source, f.name, f.sha256, f.c2pa_state, f.restrictions,
       f.source_request_id, i.request_id
FROM images AS i JOIN inputs AS f USING (request_id)
WHERE i.sku = $asset OR starts_with(i.request_id, $asset) OR starts_with(i.sha256, $asset)
ORDER BY i.sku, i."index", f.step, f.role
