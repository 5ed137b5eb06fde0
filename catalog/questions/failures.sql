-- Images that failed, with the error; `made_since` tells whether a later run made them
-- $days = 365: how many days back
SELECT r.recorded_at, r.sku, r."index", r.campaign, r.error, r.model, r.model_revision,
       c.state = 'done' AS made_since, r.run_id, r.batch_id, r.request_id
FROM raw.requests AS r
JOIN requests AS c ON c.request_id = r.request_id
WHERE r.state = 'failed' AND r.recorded_at >= now() - to_days($days::INTEGER)
ORDER BY r.recorded_at DESC, r.sku, r."index"
