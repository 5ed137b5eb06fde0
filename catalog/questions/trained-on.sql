-- Which training pictures stand behind each image that was made with an adapter, and their rights
-- $adapter = "": only this adapter
SELECT u.model AS adapter, u.revision, i.sku, i."index", i.outcome, i.cleared, t.file, t.title,
       t.rights_holder, t.licence, t.waiver, t.sha256 AS training_sha256, i.sha256, i.request_id
FROM models_used AS u
JOIN images AS i USING (request_id)
LEFT JOIN training_images AS t ON t.adapter = u.model AND t.revision = u.revision
WHERE u.part = 'adapter' AND ($adapter = '' OR u.model = $adapter)
ORDER BY u.model, i.recorded_at DESC, i.sku, i."index", t.file
