-- Each image that was reviewed or blocked: every rule that spoke, score, bound, nearest reference
-- $campaign = "": only this campaign
-- $days = 365: how many days back
-- $limit = 100: at most so many images
WITH held AS (
    SELECT request_key, attempt, recorded_at, sku, "index", campaign, outcome, decision, replayed,
           remade_sha256
    FROM raw.counted
    WHERE outcome <> 'pass' AND ($campaign = '' OR campaign = $campaign)
      AND recorded_at >= now() - to_days($days::INTEGER)
    ORDER BY recorded_at DESC, sku, "index" LIMIT $limit),
said AS (
    SELECT request_key, attempt, policy, policy_version, reasons
    FROM raw.latest_replayed SEMI JOIN (FROM held WHERE replayed) USING (request_key, attempt)),
told AS (
    SELECT h.*, coalesce(s.policy, r.policy) AS policy,
           coalesce(s.policy_version, r.policy_version) AS policy_version,
           unnest(if(h.replayed, s.reasons, r.reasons)) AS reason, r.request_id,
           coalesce(h.remade_sha256, r.sha256) AS sha256
    FROM held AS h JOIN raw.images AS r USING (request_key, attempt)
    LEFT JOIN said AS s USING (request_key, attempt))
SELECT sku, "index", campaign, outcome, decision, reason.rule, reason.outcome AS says,
       reason.score, reason.bound, reason.text AS why,
       coalesce(reason.evidence -> '$.nearest[0]', reason.evidence -> '$.nearest') AS nearest,
       policy, policy_version, request_id, sha256, recorded_at
FROM told
ORDER BY recorded_at DESC, sku, "index", reason.rule
