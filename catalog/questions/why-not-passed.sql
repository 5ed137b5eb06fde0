-- Each image that was reviewed or blocked: every rule that spoke, score, bound, nearest reference
-- $campaign = "": only this campaign
-- $days = 365: how many days back
-- $limit = 1000: at most so many images
WITH held AS (
    SELECT request_key, attempt FROM raw.counted
    WHERE outcome <> 'pass' AND ($campaign = '' OR campaign = $campaign)
      AND recorded_at >= now() - to_days($days::INTEGER)
    ORDER BY recorded_at DESC, sku, "index" LIMIT $limit),
told AS (
    SELECT request_id, sku, "index", campaign, recorded_at, outcome, decision, sha256, policy,
           policy_version, unnest(reasons) AS reason
    FROM raw.counted SEMI JOIN held USING (request_key, attempt))
SELECT h.sku, h."index", h.campaign, h.outcome, h.decision, h.reason.rule, h.reason.outcome AS says,
       h.reason.score, h.reason.bound, h.reason.text AS why,
       coalesce(h.reason.evidence -> '$.nearest[0]', h.reason.evidence -> '$.nearest') AS nearest,
       h.policy, h.policy_version, h.request_id, h.sha256, h.recorded_at
FROM told AS h
ORDER BY h.recorded_at DESC, h.sku, h."index", h.reason.rule
