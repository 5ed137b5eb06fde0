-- Images on which people disagree, with each other, with themselves, or with a policy replayed later
-- $days = 365: how many days back
-- $limit = 100: at most so many
WITH said AS (
    SELECT request_id, min(decision) <> max(decision) AS divided,
           min(reviewer) <> max(reviewer) AS several, max(decided_at) AS last_at
    FROM raw.reviews GROUP BY request_id
    HAVING max(decided_at) >= now() - to_days($days::INTEGER)),
overruled AS (
    SELECT request_id FROM raw.since
    WHERE replayed AND ((decision = 'approve' AND outcome = 'block')
                        OR (decision = 'reject' AND outcome = 'pass'))),
found AS (
    SELECT *, left(request_id, 32)::UUID AS request_key FROM said
    WHERE divided OR request_id IN (FROM overruled)
    ORDER BY last_at DESC, request_id LIMIT $limit),
tried AS (SELECT request_key, attempt FROM raw.images SEMI JOIN found USING (request_key)),
told AS (
    SELECT request_id, list(reviewer || ': ' || decision || ' – ' || reason ORDER BY decided_at)
               AS decisions
    FROM raw.reviews SEMI JOIN found USING (request_id) GROUP BY request_id)
SELECT r.sku, r."index", r.campaign,
       CASE WHEN f.divided AND f.several THEN 'two people'
            WHEN f.divided THEN 'one person, twice'
            ELSE 'a person and a policy' END AS between,
       r.decision AS decision_that_counts, r.outcome AS verdict_today, r.policy, r.policy_version,
       t.decisions, f.last_at, f.request_id
FROM found AS f JOIN told AS t USING (request_id)
JOIN (SELECT request_key, sku, "index", campaign, decision, outcome, policy, policy_version
      FROM raw.counted SEMI JOIN tried USING (request_key, attempt)) AS r USING (request_key)
ORDER BY f.last_at DESC, f.request_id
