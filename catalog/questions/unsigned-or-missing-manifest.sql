-- Passed or approved images without a signed file or manifest, and signed ones that may not be
-- $limit = 1000: at most so many
WITH faulty AS (
    SELECT request_key, attempt FROM raw.counted
    WHERE ((outcome = 'pass' OR decision = 'approve')
           AND (asset_state IS DISTINCT FROM 'signed' OR c2pa_label IS NULL))
       OR (asset_state = 'signed' AND (outcome = 'block'
                                       OR (outcome = 'review' AND decision IS NULL)))
    ORDER BY recorded_at DESC, sku, "index" LIMIT $limit)
SELECT sku, "index", outcome, decision, asset_state,
       CASE WHEN NOT cleared AND asset_state = 'signed' AND outcome = 'block'
                 THEN 'blocked, but signed'
            WHEN NOT cleared AND asset_state = 'signed' AND decision IS NULL
                 THEN 'signed without an approval'
            WHEN asset_state IS DISTINCT FROM 'signed' THEN 'no signed file'
            ELSE 'no manifest' END AS fault,
       sha256, url, request_id, run_id
FROM raw.counted SEMI JOIN faulty USING (request_key, attempt)
ORDER BY recorded_at DESC, sku, "index"
