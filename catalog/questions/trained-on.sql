-- Which training pictures stand behind each image that was made with an adapter, and their rights
-- $adapter = "": only this adapter
-- $limit = 1000: at most so many
WITH made AS (
    SELECT u.model AS adapter, u.revision, r.request_id, r.sku, r."index", r.recorded_at
    FROM models_used AS u JOIN requests AS r USING (request_id)
    WHERE u.part = 'adapter' AND ($adapter = '' OR u.model = $adapter)
    ORDER BY r.recorded_at DESC, r.request_id LIMIT $limit)
SELECT m.adapter, m.revision, m.sku, m."index", i.outcome, i.cleared, t.file, t.title,
       t.rights_holder, t.licence, t.waiver, t.sha256 AS training_sha256, i.sha256, m.request_id
FROM made AS m
LEFT JOIN training_images AS t ON t.adapter = m.adapter AND t.revision = m.revision
LEFT JOIN (SELECT request_id, outcome, cleared, sha256 FROM images
           WHERE request_id IN (SELECT request_id FROM made)) AS i ON i.request_id = m.request_id
ORDER BY m.adapter, m.recorded_at DESC, m.sku, m."index", t.file LIMIT $limit
