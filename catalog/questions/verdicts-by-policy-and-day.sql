-- How many images passed, went to review or were blocked, by policy and day (UTC)
-- $days = 365: how many days back
-- $limit = 1000: at most so many
SELECT v.decided_at::DATE AS day, v.policy, v.policy_version, v.policy_digest,
       count(*) FILTER (v.outcome = 'pass') AS passed,
       count(*) FILTER (v.outcome = 'review') AS review,
       count(*) FILTER (v.outcome = 'block') AS blocked,
       count(*) AS images
FROM verdicts AS v
WHERE v.decided_at >= now() - to_days($days::INTEGER)
GROUP BY ALL ORDER BY day DESC, v.policy, v.policy_version LIMIT $limit
