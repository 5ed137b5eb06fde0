-- Images that failed, with the error; `made_since` tells whether a later run made them
-- $days = 365: how many days back
-- $limit = 100: at most so many, the last ones
WITH failed AS (
    FROM raw.images WHERE state = 'failed' AND recorded_at >= now() - to_days($days::INTEGER)
    ORDER BY recorded_at DESC, sku, "index" LIMIT $limit)
SELECT recorded_at, sku, "index", campaign, error, model, model_revision,
       request_key IN (SELECT request_key FROM raw.images SEMI JOIN failed USING (request_key)
                       WHERE state = 'done') AS made_since,
       run_id, batch_id, request_id
FROM failed
ORDER BY recorded_at DESC, sku, "index"
