-- Images on which people disagree, with each other, with themselves, or with a policy replayed later
-- $days = 365: how many days back
-- $limit = 1000: at most so many
WITH said AS (
    SELECT request_id, count(DISTINCT decision) > 1 AS divided,
           count(DISTINCT reviewer) > 1 AS several, max(decided_at) AS last_at,
           list(reviewer || ': ' || decision || ' – ' || reason ORDER BY decided_at) AS decisions
    FROM reviews GROUP BY request_id
    HAVING max(decided_at) >= now() - to_days($days::INTEGER)),
today AS (
    SELECT s.*, w.decision, v.outcome, v.policy, v.policy_version,
           v.replay_id IS NOT NULL AND ((w.decision = 'approve' AND v.outcome = 'block')
               OR (w.decision = 'reject' AND v.outcome = 'pass')) AS overruled
    FROM said AS s
    JOIN (SELECT request_id, decision FROM reviews WHERE counts) AS w USING (request_id)
    LEFT JOIN (SELECT request_id, outcome, policy, policy_version, replay_id FROM verdicts
               WHERE request_id IN (SELECT request_id FROM said)) AS v USING (request_id)),
found AS (
    SELECT * FROM today WHERE divided OR overruled
    ORDER BY last_at DESC, request_id LIMIT $limit)
SELECT r.sku, r."index", r.campaign,
       CASE WHEN f.divided AND f.several THEN 'two people'
            WHEN f.divided THEN 'one person, twice'
            ELSE 'a person and a policy' END AS between,
       f.decision AS decision_that_counts, f.outcome AS verdict_today, f.policy, f.policy_version,
       f.decisions, f.last_at, f.request_id
FROM found AS f JOIN requests AS r USING (request_id)
ORDER BY f.last_at DESC, f.request_id
