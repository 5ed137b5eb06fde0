-- What each brief cost and yielded, its prompt template included (briefs of a name differ by digest)
-- $campaign = "": only this campaign
-- $days = 365: how many days back
-- $limit = 1000: at most so many
WITH by_run AS (
    SELECT run_id, count(*) AS images, count(*) FILTER (state = 'failed') AS failed,
           count(*) FILTER (outcome = 'pass') AS passed,
           count(*) FILTER (outcome = 'review') AS review,
           count(*) FILTER (outcome = 'block') AS blocked,
           count(*) FILTER (outcome = 'review' AND decision = 'approve') AS approved,
           count(outcome) AS judged, sum(generate_ms) / 1000 AS seconds
    FROM images
    WHERE ($campaign = '' OR campaign = $campaign)
      AND recorded_at >= now() - to_days($days::INTEGER)
    GROUP BY run_id)
SELECT b.brief, b.brief_sha256, sum(r.images)::BIGINT AS images, sum(r.failed)::BIGINT AS failed,
       sum(passed)::BIGINT AS passed, sum(review)::BIGINT AS review,
       sum(blocked)::BIGINT AS blocked, sum(approved)::BIGINT AS approved,
       round(sum(passed) / nullif(sum(judged), 0), 4) AS pass_rate,
       round(sum(seconds), 1) AS accelerator_seconds,
       round(sum(seconds) / nullif(sum(passed) + sum(approved), 0), 3)
           AS seconds_per_usable_image
FROM by_run AS r LEFT JOIN (SELECT run_id, brief, brief_sha256 FROM runs) AS b USING (run_id)
GROUP BY ALL ORDER BY images DESC, b.brief, b.brief_sha256 LIMIT $limit
