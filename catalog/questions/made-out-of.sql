-- Everything that was made out of a picture: a photo, a mask, a control picture, or an asset of ours
-- $picture: the first digits of its SHA-256 or of its request id, or a part of its file name
-- $limit = 1000: at most so many
WITH made AS (
    SELECT f.*, r.sku, r."index", r.mode, r.recorded_at
    FROM inputs AS f JOIN requests AS r USING (request_id)
    WHERE starts_with(f.sha256, lower($picture))
       OR starts_with(f.source_request_id, lower($picture))
       OR contains(lower(f.name), lower($picture))
    ORDER BY r.recorded_at DESC, r.sku, r."index" LIMIT $limit)
SELECT m.name AS picture, m.role, m.source, m.sha256 AS picture_sha256, m.sku, m."index", m.mode,
       i.outcome, i.cleared, i.sha256, m.recorded_at, m.request_id
FROM made AS m
LEFT JOIN (SELECT request_id, outcome, cleared, sha256 FROM images
           WHERE request_id IN (SELECT request_id FROM made)) AS i USING (request_id)
ORDER BY m.recorded_at DESC, m.sku, m."index", m.step, m.role
