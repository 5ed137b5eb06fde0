-- How fast each run was, and where the time of an image went, step by step (milliseconds)
-- $days = 365: how many days back
WITH steps AS (
    SELECT run_id, s.step, avg((milliseconds ->> ('$."' || s.step || '"'))::DOUBLE) AS mean
    FROM (SELECT run_id, milliseconds, unnest(json_keys(milliseconds)) AS step
          FROM requests WHERE state = 'done') AS s
    GROUP BY ALL)
SELECT r.run_id, r.started_at, r.host, r.device, r.images - r.failed AS images,
       epoch(r.last_commit_at - r.started_at) AS seconds,
       round((r.images - r.failed) / nullif(epoch(r.last_commit_at - r.started_at), 0), 3)
           AS images_per_second,
       s.ms_per_image
FROM runs AS r
LEFT JOIN (SELECT run_id, map(list(step ORDER BY step), list(round(mean, 2) ORDER BY step))
                          AS ms_per_image
           FROM steps GROUP BY run_id) AS s USING (run_id)
WHERE r.started_at >= now() - to_days($days::INTEGER)
ORDER BY r.started_at DESC
