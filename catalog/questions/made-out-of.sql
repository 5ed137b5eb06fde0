-- Everything that was made out of a picture: a photo, a mask, a control picture, or an asset of ours
-- $picture: the first digits of its SHA-256 or of its request id, or a part of its file name
-- $limit = 100: at most so many
WITH used AS (
    SELECT *, left(request_id, 32)::UUID AS request_key FROM raw.inputs
    WHERE starts_with(sha256, lower($picture))
       OR starts_with(source_request_id, lower($picture))
       OR contains(lower(name), lower($picture))),
-- Attempts sort by time: the newest are known before anything wide is read.
newest AS (
    FROM used ANTI JOIN raw.superseded USING (request_key, attempt)
    ORDER BY attempt DESC, request_id LIMIT $limit)
SELECT f.name AS picture, f.role, f.source, f.sha256 AS picture_sha256, i.sku, i."index", i.mode,
       i.outcome, i.cleared, i.sha256, i.recorded_at, i.request_id
FROM newest AS f JOIN (
    SELECT request_key, attempt, request_id, sku, "index", mode, outcome, cleared, sha256,
           recorded_at
    FROM raw.counted SEMI JOIN newest USING (request_key, attempt)) AS i
    USING (request_key, attempt)
ORDER BY i.recorded_at DESC, i.sku, i."index", f.step, f.role
