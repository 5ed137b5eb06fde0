-- Each image that was reviewed or blocked: every rule that spoke, score, bound, nearest reference
-- $campaign = "": only this campaign
-- $days = 365: how many days back
SELECT i.sku, i."index", i.campaign, i.outcome, i.decision, r.reason.rule, r.reason.outcome AS says,
       r.reason.score, r.reason.bound, r.reason.text AS why,
       coalesce(r.reason.evidence -> '$.nearest[0]', r.reason.evidence -> '$.nearest') AS nearest,
       i.policy, i.policy_version, i.request_id,
       i.sha256, i.recorded_at
FROM images AS i, unnest(i.reasons) AS r(reason)
WHERE i.outcome <> 'pass' AND ($campaign = '' OR i.campaign = $campaign)
  AND i.recorded_at >= now() - to_days($days::INTEGER)
ORDER BY i.recorded_at DESC, i.sku, i."index", r.reason.rule
