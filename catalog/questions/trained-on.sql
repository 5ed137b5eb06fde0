-- Which training pictures stand behind each image that was made with an adapter, and their rights
-- $adapter = "": only this adapter
-- $limit = 100: at most so many
WITH candidates AS (
    SELECT request_key, attempt, request_id, recorded_at
    FROM raw.images ANTI JOIN raw.superseded USING (request_key, attempt)
    WHERE contains(recipe, '"adapters":[{')
      AND ($adapter = '' OR list_contains(recipe ->> '$.adapters[*].model', $adapter)
           OR list_contains(recipe ->> '$.earlier[*].adapters[*].model', $adapter))
    ORDER BY recorded_at DESC, request_id LIMIT $limit),
wide AS (
    SELECT request_id, sku, "index", outcome, cleared, sha256, recorded_at, recipe
    FROM raw.counted SEMI JOIN candidates USING (request_key, attempt)),
steps AS (
    SELECT request_id, recipe AS step FROM wide
    UNION ALL
    SELECT request_id, unnest(CAST(recipe -> '$.earlier' AS JSON[])) FROM wide),
used AS (
    SELECT DISTINCT request_id, used ->> '$.model' AS adapter,
           used ->> '$.model_revision' AS revision
    FROM (SELECT request_id, unnest(CAST(step -> '$.adapters' AS JSON[])) AS used FROM steps)),
made AS (
    SELECT u.adapter, u.revision, w.* EXCLUDE (recipe)
    FROM used AS u JOIN wide AS w USING (request_id)
    WHERE $adapter = '' OR u.adapter = $adapter
    ORDER BY w.recorded_at DESC, w.request_id LIMIT $limit)
SELECT m.adapter, m.revision, m.sku, m."index", m.outcome, m.cleared, t.file, t.title,
       t.rights_holder, t.licence, t.waiver, t.sha256 AS training_sha256, m.sha256, m.request_id
FROM made AS m
LEFT JOIN training_images AS t ON t.adapter = m.adapter AND t.revision = m.revision
ORDER BY m.adapter, m.recorded_at DESC, m.sku, m."index", t.file LIMIT $limit
