-- Which policies were applied to images made before, by whom, and how many verdicts they changed
-- $limit = 1000: at most so many
SELECT applied_at, applied_by, policy, policy_version, "where", judged, changed, policy_digest,
       replay_id
FROM replays
ORDER BY applied_at DESC LIMIT $limit
