-- Who approved or rejected what, when and why, the last first
-- $reviewer = "": only this person's decisions
-- $days = 365: how many days back
-- $limit = 100: at most so many
WITH decided AS (
    SELECT *, left(request_id, 32)::UUID AS request_key FROM reviews
    WHERE ($reviewer = '' OR reviewer = $reviewer)
      AND decided_at >= now() - to_days($days::INTEGER)
    ORDER BY decided_at DESC, request_id LIMIT $limit),
tried AS (SELECT request_key, attempt FROM raw.images SEMI JOIN decided USING (request_key))
SELECT w.decided_at, w.reviewer, w.decision, w.reason, w.counts, r.sku, r."index", r.campaign,
       r.policy, r.policy_version,
       list_transform(r.reasons, lambda one: one.rule || ' ' || coalesce(one.score::VARCHAR, ''))
           AS reviewed_for,
       w.asset_sha256, w.request_id
FROM decided AS w JOIN (
    SELECT request_key, sku, "index", campaign, policy, policy_version, reasons
    FROM raw.counted SEMI JOIN tried USING (request_key, attempt)) AS r USING (request_key)
ORDER BY w.decided_at DESC, r.sku, r."index"
