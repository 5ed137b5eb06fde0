-- Every image of one item, with verdict, decision, file and the packs it went into
-- $sku: the item
WITH i AS (FROM images WHERE sku = $sku)
SELECT i.sku, i."index", i.state, i.outcome, i.decision, i.cleared, i.asset_state, i.prompt, i.seed,
       i.model, i.model_revision, i.model_licence, i.terms_id, i.expires, i.url, i.sha256,
       i.c2pa_label, p.packs, i.error, i.request_id, i.recorded_at
FROM i
LEFT JOIN (SELECT request_id, list(DISTINCT pack_id ORDER BY pack_id) AS packs
           FROM pack_assets SEMI JOIN i USING (request_id) GROUP BY request_id) AS p
    USING (request_id)
ORDER BY i."index", i.recorded_at
