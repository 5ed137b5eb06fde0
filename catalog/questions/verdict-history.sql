-- Every verdict that an image ever had, the last one first, and the replay that gave it
-- $asset: its sku, or the first digits of its SHA-256 or request id
WITH meant AS (
    SELECT request_id FROM requests
    WHERE sku = $asset OR (length($asset) >= 6 AND starts_with(request_id, lower($asset)))
    UNION
    SELECT request_id FROM assets
    WHERE length($asset) >= 6 AND starts_with(sha256, lower($asset)))
SELECT m.sku, m."index", h.decided_at, h.outcome, h.policy, h.policy_version,
       list_transform(h.reasons, lambda one: one.text) AS reasons, r.applied_by, h.replay_id,
       h.policy_digest, h.request_id
FROM requests AS m JOIN verdict_history AS h USING (request_id)
LEFT JOIN replays AS r USING (replay_id)
WHERE m.request_id IN (SELECT request_id FROM meant)
  AND h.request_id IN (SELECT request_id FROM meant)
ORDER BY m.sku, m."index", h.request_id, h.decided_at DESC
