-- Passed or approved images without a signed file or manifest, and signed ones that may not be
-- $limit = 100: at most so many
WITH faulty AS (
    SELECT request_key, attempt, recorded_at, sku, "index", outcome, decision, asset_state, cleared,
           remade, remade_sha256, remade_url
    FROM raw.counted
    WHERE ((outcome = 'pass' OR decision = 'approve')
           AND (asset_state IS DISTINCT FROM 'signed' OR c2pa_label IS NULL))
       OR (asset_state = 'signed' AND (outcome = 'block'
                                       OR (outcome = 'review' AND decision IS NULL)))
    ORDER BY recorded_at DESC, sku, "index" LIMIT $limit)
SELECT f.sku, f."index", f.outcome, f.decision, f.asset_state,
       CASE WHEN NOT f.cleared AND f.asset_state = 'signed' AND f.outcome = 'block'
                 THEN 'blocked, but signed'
            WHEN NOT f.cleared AND f.asset_state = 'signed' AND f.decision IS NULL
                 THEN 'signed without an approval'
            WHEN f.asset_state IS DISTINCT FROM 'signed' THEN 'no signed file'
            ELSE 'no manifest' END AS fault,
       coalesce(f.remade_sha256, r.sha256) AS sha256, if(f.remade, f.remade_url, r.url) AS url,
       r.request_id, r.run_id
FROM faulty AS f JOIN raw.images AS r USING (request_key, attempt)
ORDER BY f.recorded_at DESC, f.sku, f."index"
