-- Everything ever made with a model, failures and superseded attempts included
-- $model: the model's name, or a part of it
-- $revision = "": only this revision
SELECT r.model, r.model_revision, m.licence AS model_licence, r.sku, r."index", r.campaign,
       r.client, r.state, a.counts, v.outcome, f.state AS asset_state, f.sha256, r.recorded_at,
       r.run_id, r.request_id
FROM raw.requests AS r
JOIN attempts AS a ON a.request_id = r.request_id AND a.attempt = r.attempt
LEFT JOIN models AS m ON m.name = r.model AND m.revision = r.model_revision
LEFT JOIN raw.verdicts AS v ON v.request_id = r.request_id AND v.attempt = r.attempt
LEFT JOIN raw.assets AS f ON f.request_id = r.request_id AND f.attempt = r.attempt
WHERE contains(lower(r.model), lower($model))
  AND ($revision = '' OR r.model_revision = $revision)
ORDER BY r.recorded_at DESC, r.sku, r."index"
