-- Which rules send images to review or block them, how often, and over what scores
-- $days = 365: how many days back
-- $limit = 1000: at most so many
SELECT reason.rule, reason.outcome AS says, policy, policy_version, count(*) AS images,
       min(reason.score) AS lowest, median(reason.score) AS median, max(reason.score) AS highest,
       any_value(reason.bound) AS bound, any_value(reason.text) AS example
FROM (SELECT policy, policy_version, unnest(reasons) AS reason
      FROM verdicts
      WHERE outcome <> 'pass' AND decided_at >= now() - to_days($days::INTEGER))
GROUP BY ALL ORDER BY images DESC, reason.rule LIMIT $limit
