-- What people make of each rule that asks them: a rule that they mostly overrule is too strict
-- $days = 365: how many days back
-- $limit = 1000: at most so many
WITH asked AS (
    SELECT unnest(rules) AS rule, decision, reviewer, request_id FROM reviews
    WHERE decided_at >= now() - to_days($days::INTEGER))
SELECT rule, count(*) AS decisions, count(DISTINCT reviewer) AS reviewers,
       count(*) FILTER (decision = 'approve') AS approved,
       count(*) FILTER (decision = 'reject') AS rejected,
       round(count(*) FILTER (decision = 'approve') / count(*), 4) AS approval_rate
FROM asked GROUP BY rule ORDER BY decisions DESC, rule LIMIT $limit
