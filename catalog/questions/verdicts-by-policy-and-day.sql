-- How many images passed, went to review or were blocked, by policy and day (UTC)
-- $days = 365: how many days back
-- $limit = 1000: at most so many
-- Days by arithmetic: the cast to a date asks for the time zone's rules of each of millions of times.
SELECT DATE '1970-01-01' + (epoch_us(decided_at) // 86_400_000_000)::INTEGER AS day,
       any_value(policy) AS policy,
       any_value(policy_version) AS policy_version, policy_digest,
       count(*) FILTER (outcome = 'pass') AS passed,
       count(*) FILTER (outcome = 'review') AS review,
       count(*) FILTER (outcome = 'block') AS blocked,
       count(*) AS images
FROM verdicts
WHERE decided_at >= now() - to_days($days::INTEGER)
GROUP BY day, policy_digest ORDER BY day DESC, policy, policy_version LIMIT $limit
