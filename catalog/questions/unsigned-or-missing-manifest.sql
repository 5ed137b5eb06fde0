-- Passed or approved images without a signed file or manifest, and signed ones that may not be
SELECT i.sku, i."index", i.outcome, i.decision, i.asset_state,
       CASE WHEN NOT i.cleared AND i.asset_state = 'signed' AND i.outcome = 'block'
                 THEN 'blocked, but signed'
            WHEN NOT i.cleared AND i.asset_state = 'signed' AND i.decision IS NULL
                 THEN 'signed without an approval'
            WHEN i.asset_state IS DISTINCT FROM 'signed' THEN 'no signed file'
            WHEN i.c2pa_label IS NULL THEN 'no manifest'
            ELSE 'the manifest is empty' END AS fault,
       i.sha256, i.url, i.request_id, i.run_id
FROM images AS i
LEFT JOIN manifests AS m ON m.request_id = i.request_id AND m.asset_sha256 = i.sha256
WHERE ((i.outcome = 'pass' OR i.decision = 'approve')
       AND (i.asset_state IS DISTINCT FROM 'signed' OR i.c2pa_label IS NULL
            OR octet_length(m.manifest) = 0))
   OR (i.asset_state = 'signed' AND (i.outcome = 'block'
                                     OR (i.outcome = 'review' AND i.decision IS NULL)))
ORDER BY i.sku, i."index"
