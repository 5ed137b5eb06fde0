-- What waits for a person's decision, lapsed approvals too, the most urgent and oldest first
-- $limit = 100: at most so many
-- Attempts sort by time.
WITH waiting AS (
    FROM raw.waiting ORDER BY urgency DESC, attempt, request_key LIMIT $limit)
SELECT r.recorded_at, r.sku, r."index", r.campaign, w.urgency,
       list_transform(if(w.replayed, w.replayed_reasons, r.reasons), lambda one: one.text)
           AS reviewed_for,
       w.policy, w.policy_version, w.reviewer, w.approved_until,
       if(w.remade, w.remade_url, r.url) AS url, coalesce(w.remade_sha256, r.sha256) AS sha256,
       r.request_id
FROM waiting AS w JOIN raw.images AS r USING (request_key, attempt)
ORDER BY w.urgency DESC, r.recorded_at, r.sku, r."index"
