-- What an image was made from: its inputs and intermediates, step by step, and their credentials
-- $asset: sku, or the first digits of the SHA-256 or of the request id
WITH named AS (
    SELECT request_key, attempt FROM raw.images WHERE sku = $asset
    UNION
    SELECT request_key, attempt FROM raw.images
    WHERE starts_with(request_id, lower($asset))
      AND request_key BETWEEN TRY_CAST(rpad($asset[:32], 32, '0') AS UUID)
                          AND TRY_CAST(rpad($asset[:32], 32, 'f') AS UUID)
    UNION
    SELECT request_key, attempt FROM raw.images
    WHERE regexp_full_match($asset, '[0-9a-fA-F]{1,64}') AND starts_with(sha256, lower($asset))
    UNION
    SELECT left(request_id, 32)::UUID, attempt FROM raw.later_files
    WHERE regexp_full_match($asset, '[0-9a-fA-F]{1,64}') AND starts_with(sha256, lower($asset))),
meant AS (
    SELECT request_id, attempt, sku, "index"
    FROM raw.images SEMI JOIN named USING (request_key, attempt)
    ANTI JOIN raw.superseded USING (request_key, attempt))
SELECT m.sku, m."index", f.step, f.role, f.source, f.name, f.sha256, f.c2pa_state, f.restrictions,
       f.source_request_id, f.request_id
FROM raw.inputs AS f JOIN meant AS m USING (request_id, attempt)
ORDER BY m.sku, m."index", f.request_id, f.step, f.role
