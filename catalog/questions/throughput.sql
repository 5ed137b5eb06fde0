-- How fast each run was, and where the time of an image went, by step (ms, over up to 16 batches)
-- $days = 365: how many days back
-- $limit = 1000: at most so many
WITH meant AS (
    SELECT * FROM runs WHERE started_at >= now() - to_days($days::INTEGER)
    ORDER BY started_at DESC LIMIT $limit),
sampled AS (
    SELECT run_id, batch_id FROM batches WHERE run_id IN (SELECT run_id FROM meant)
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY md5(batch_id)) <= 16),
steps AS (
    SELECT run_id, s.step, avg((milliseconds ->> ('$."' || s.step || '"'))::DOUBLE) AS mean
    FROM (SELECT run_id, milliseconds, unnest(json_keys(milliseconds)) AS step
          FROM raw.images SEMI JOIN sampled USING (run_id, batch_id)
          ANTI JOIN raw.superseded USING (request_key, attempt) WHERE state = 'done') AS s
    GROUP BY ALL)
SELECT r.run_id, r.started_at, r.host, r.device, r.images - r.failed AS images,
       epoch(r.last_commit_at - r.started_at) AS seconds,
       round((r.images - r.failed) / nullif(epoch(r.last_commit_at - r.started_at), 0), 3)
           AS images_per_second,
       s.ms_per_image
FROM meant AS r
LEFT JOIN (SELECT run_id, map(list(step ORDER BY step), list(round(mean, 2) ORDER BY step))
                          AS ms_per_image
           FROM steps GROUP BY run_id) AS s USING (run_id)
ORDER BY r.started_at DESC
