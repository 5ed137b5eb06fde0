-- What waits for a person's decision, lapsed approvals too, the most urgent and oldest first
-- $limit = 100: at most so many
WITH asked AS (
    SELECT *, coalesce(list_max(list_transform(asking, lambda one: list_position(
        ['low', 'normal', 'high', 'critical'], one.severity))), 2) AS urgency
    FROM (SELECT request_key, attempt, reasons AS asking, policy, policy_version
          FROM raw.images ANTI JOIN raw.latest_replayed USING (request_key)
               ANTI JOIN raw.superseded USING (request_key, attempt)
          WHERE outcome = 'review'
          UNION ALL
          SELECT request_key, attempt, reasons, policy, policy_version
          FROM raw.latest_replayed WHERE outcome = 'review')),
-- Attempts sort by time.
waiting AS (
    SELECT a.*, s.reviewer, s.approved_until, s.remade, s.sha256, s.url
    FROM asked AS a LEFT JOIN raw.since AS s USING (request_key)
    WHERE s.decision IS NULL OR (s.decision = 'approve' AND NOT s.approval_holds)
    ORDER BY a.urgency DESC, a.attempt, a.request_key LIMIT $limit)
SELECT r.recorded_at, r.sku, r."index", r.campaign, w.urgency,
       list_transform(w.asking, lambda one: one.text) AS reviewed_for,
       w.policy, w.policy_version, w.reviewer, w.approved_until,
       if(w.remade, w.url, r.url) AS url, coalesce(w.sha256, r.sha256) AS sha256, r.request_id
FROM waiting AS w JOIN raw.images AS r USING (request_key, attempt)
ORDER BY w.urgency DESC, r.recorded_at, r.sku, r."index"
