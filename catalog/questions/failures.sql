-- Images that failed, with the error; `made_since` tells whether a later run made them
-- $days = 365: how many days back
-- $limit = 1000: at most so many, the last ones
SELECT r.recorded_at, r.sku, r."index", r.campaign, r.error, r.model, r.model_revision,
       c.request_id IS NOT NULL AS made_since, r.run_id, r.batch_id, r.request_id
FROM (FROM raw.images WHERE state = 'failed' AND recorded_at >= now() - to_days($days::INTEGER)
      ORDER BY recorded_at DESC, sku, "index" LIMIT $limit) AS r
LEFT JOIN (SELECT DISTINCT request_id FROM raw.images WHERE state = 'done') AS c USING (request_id)
ORDER BY r.recorded_at DESC, r.sku, r."index"
