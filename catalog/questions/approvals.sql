-- Who approved or rejected what, when and why, the last first
-- $reviewer = "": only this person's decisions
-- $days = 365: how many days back
-- $limit = 1000: at most so many
WITH decided AS (
    SELECT * FROM reviews
    WHERE ($reviewer = '' OR reviewer = $reviewer)
      AND decided_at >= now() - to_days($days::INTEGER)
    ORDER BY decided_at DESC, request_id LIMIT $limit)
SELECT w.decided_at, w.reviewer, w.decision, w.reason, w.counts, r.sku, r."index", r.campaign,
       v.policy, v.policy_version,
       list_transform(v.reasons, lambda one: one.rule || ' ' || coalesce(one.score::VARCHAR, ''))
           AS reviewed_for,
       w.asset_sha256, w.request_id
FROM decided AS w
JOIN requests AS r USING (request_id)
LEFT JOIN verdicts AS v USING (request_id)
ORDER BY w.decided_at DESC, r.sku, r."index"
