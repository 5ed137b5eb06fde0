-- All runs: when, where, with which brief and policy, how they ended and what they made
-- $days = 365: how many days back
-- $limit = 1000: at most so many
SELECT run_id, started_at, finished_at, status, requested, images, failed, batches, brief,
       policy, policy_version, host, device, versions, brief_sha256, detail
FROM runs
WHERE started_at >= now() - to_days($days::INTEGER)
ORDER BY started_at DESC LIMIT $limit
