-- Why one image was blocked or sent to review: every score beside the rule that spoke on it
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
    SELECT request_id, attempt, sku, "index", outcome, reasons, decision, reviewer, review_reason,
           policy, policy_version, policy_digest, error, signature, "values", evidence
    FROM raw.counted SEMI JOIN named USING (request_key, attempt)),
spoken AS (
    SELECT request_id, reason.rule AS rule, reason.outcome AS says, reason.bound AS bound,
           reason.text AS why, reason.evidence AS evidence, reason.declared AS declared
    FROM (SELECT request_id, unnest(reasons) AS reason FROM meant)),
again AS (
    SELECT request_id, attempt, arg_max_null(signature, measured_at) AS signature,
           arg_max_null("values", measured_at) AS "values",
           arg_max_null(evidence, measured_at) AS evidence
    FROM raw.rescored SEMI JOIN meant USING (request_id, attempt) GROUP BY ALL),
measured AS (
    SELECT m.request_id, n.check_name || '.' || n.name AS score,
           coalesce(a."values", m."values")[n.place] AS value,
           coalesce(a.evidence, m.evidence)[n.place] AS evidence
    FROM meant AS m LEFT JOIN again AS a USING (request_id, attempt)
    JOIN raw.score_places AS n ON n.signature = coalesce(a.signature, m.signature)),
all_of_it AS (
    SELECT coalesce(r.request_id, s.request_id) AS request_id, coalesce(r.rule, s.score) AS score,
           s.value, r.says, r.bound, r.why, r.declared, coalesce(s.evidence, r.evidence) AS evidence
    FROM spoken AS r FULL JOIN measured AS s ON s.request_id = r.request_id
         -- A rule for some channels is named `check.score[channels]`.
         AND s.score = regexp_replace(r.rule, '\[.*\]$', ''))
SELECT m.sku, m."index", m.outcome, a.score, a.value, a.says, a.bound, a.why, a.declared,
       coalesce(a.evidence -> '$.nearest[0]', a.evidence -> '$.nearest') AS nearest,
       (a.evidence ->> '$.detector') AS detector, (a.evidence ->> '$.revision') AS revision,
       m.decision, m.reviewer, m.review_reason, m.policy, m.policy_version, m.policy_digest,
       m.error, m.request_id
FROM meant AS m LEFT JOIN all_of_it AS a USING (request_id)
ORDER BY m.sku, m."index", a.says IS NULL, a.score
