-- Every verdict that an image ever had, the last one first, and the replay that gave it
-- $asset: its sku, or the first digits of its SHA-256 or request id
WITH named AS (
    SELECT request_key, attempt FROM raw.images WHERE sku = $asset
    UNION
    SELECT request_key, attempt FROM raw.images
    WHERE length($asset) >= 6 AND starts_with(request_id, lower($asset))
      AND request_key BETWEEN TRY_CAST(rpad($asset[:32], 32, '0') AS UUID)
                          AND TRY_CAST(rpad($asset[:32], 32, 'f') AS UUID)
    UNION
    SELECT request_key, attempt FROM raw.images
    WHERE regexp_full_match($asset, '[0-9a-fA-F]{6,64}') AND starts_with(sha256, lower($asset))
    UNION
    SELECT left(request_id, 32)::UUID, attempt FROM raw.later_files
    WHERE regexp_full_match($asset, '[0-9a-fA-F]{6,64}') AND starts_with(sha256, lower($asset))),
meant AS (
    SELECT request_id, attempt, sku, "index", outcome, reasons, policy, policy_version,
           policy_digest, recorded_at
    FROM raw.images SEMI JOIN named USING (request_key, attempt)
    ANTI JOIN raw.superseded USING (request_key, attempt)),
said AS (
    SELECT request_id, outcome, reasons, policy, policy_version, policy_digest,
           recorded_at AS decided_at, NULL AS replay_id
    FROM meant WHERE outcome IS NOT NULL
    UNION ALL
    SELECT request_id, outcome, reasons, policy, policy_version, policy_digest, decided_at,
           replay_id
    FROM raw.replayed_verdicts SEMI JOIN meant USING (request_id, attempt))
SELECT m.sku, m."index", h.decided_at, h.outcome, h.policy, h.policy_version,
       list_transform(h.reasons, lambda one: one.text) AS reasons, r.applied_by, h.replay_id,
       h.policy_digest, h.request_id
FROM meant AS m JOIN said AS h USING (request_id)
LEFT JOIN replays AS r USING (replay_id)
ORDER BY m.sku, m."index", h.request_id, h.decided_at DESC
