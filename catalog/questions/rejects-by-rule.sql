-- Which rules send images to review or block them, how often, and over what scores
-- $days = 365: how many days back
-- $limit = 1000: at most so many
SELECT r.reason.rule, r.reason.outcome AS says, v.policy, v.policy_version, count(*) AS images,
       min(r.reason.score) AS lowest, median(r.reason.score) AS median, max(r.reason.score) AS highest,
       any_value(r.reason.bound) AS bound, any_value(r.reason.text) AS example
FROM verdicts AS v, unnest(v.reasons) AS r(reason)
WHERE v.outcome <> 'pass' AND v.decided_at >= now() - to_days($days::INTEGER)
GROUP BY ALL ORDER BY images DESC, r.reason.rule LIMIT $limit
