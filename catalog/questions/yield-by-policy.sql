-- What images cost and yielded under each policy that judges them now
-- $campaign = "": only this campaign
-- $days = 365: how many days back
-- $limit = 1000: at most so many
SELECT any_value(policy) AS policy, any_value(policy_version) AS policy_version, policy_digest,
       count(*) AS images,
       count(*) FILTER (state = 'failed') AS failed,
       count(*) FILTER (outcome = 'pass') AS passed,
       count(*) FILTER (outcome = 'review') AS review,
       count(*) FILTER (outcome = 'block') AS blocked,
       count(*) FILTER (outcome = 'review' AND decision = 'approve') AS approved,
       round(count(*) FILTER (outcome = 'pass') / nullif(count(outcome), 0), 4) AS pass_rate,
       round(sum(generate_ms) / 1000, 1) AS accelerator_seconds,
       round(sum(generate_ms) / 1000 / nullif(count(*) FILTER (outcome = 'pass' OR (
           outcome = 'review' AND decision = 'approve')), 0), 3) AS seconds_per_usable_image
FROM raw.counted
WHERE ($campaign = '' OR campaign = $campaign) AND recorded_at >= now() - to_days($days::INTEGER)
GROUP BY policy_digest ORDER BY images DESC, policy, policy_version, policy_digest LIMIT $limit
