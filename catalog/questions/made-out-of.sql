-- Everything that was made out of a picture: a photo, a mask, a control picture, or an asset of ours
-- $picture: the first digits of its SHA-256 or of its request id, or a part of its file name
SELECT f.name AS picture, f.role, f.source, f.sha256 AS picture_sha256, i.sku, i."index", i.mode,
       i.outcome, i.cleared, i.sha256, i.recorded_at, i.request_id
FROM inputs AS f JOIN images AS i USING (request_id)
WHERE starts_with(f.sha256, lower($picture)) OR starts_with(f.source_request_id, lower($picture))
   OR contains(lower(f.name), lower($picture))
ORDER BY i.recorded_at DESC, i.sku, i."index"
