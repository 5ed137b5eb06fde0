-- Everything ever made with a model, failures and superseded attempts included, the last first
-- $model: the model's name, or a part of it
-- $revision = "": only this revision
-- $limit = 100: at most so many
SELECT r.model, r.model_revision, m.licence AS model_licence, r.sku, r."index", r.campaign,
       r.client, r.state, s.attempt IS NULL AS counts, r.outcome, r.asset_state, r.sha256,
       r.recorded_at, r.run_id, r.request_id
FROM (FROM raw.images WHERE contains(lower(model), lower($model))
                        AND ($revision = '' OR model_revision = $revision)
      ORDER BY recorded_at DESC, sku, "index" LIMIT $limit) AS r
LEFT JOIN raw.superseded AS s ON s.request_id = r.request_id AND s.attempt = r.attempt
LEFT JOIN models AS m ON m.name = r.model AND m.revision = r.model_revision
ORDER BY r.recorded_at DESC, r.sku, r."index"
