-- What waits for a person's decision, lapsed approvals too, the most urgent and oldest first
-- $limit = 1000: at most so many
WITH waiting AS (
    SELECT request_key, attempt,
           coalesce(list_max(list_transform(reasons, lambda one: list_position(
               ['low', 'normal', 'high', 'critical'], one.severity))), 2) AS urgency
    FROM raw.counted
    WHERE outcome = 'review'
      AND (decision IS NULL OR (decision = 'approve' AND NOT approval_holds))
    ORDER BY urgency DESC, recorded_at, sku, "index" LIMIT $limit)
SELECT recorded_at, sku, "index", campaign, urgency,
       list_transform(reasons, lambda one: one.text) AS reviewed_for,
       policy, policy_version, reviewer, approved_until, url, sha256, request_id
FROM raw.counted JOIN waiting USING (request_key, attempt)
ORDER BY urgency DESC, recorded_at, sku, "index"
