-- Which licences stand behind an image (models, adapters, pictures), and what they demand
-- $asset = "": sku, or the first digits of the request id; without it the last images made
-- $limit = 1000: at most so many
WITH known (of_model, of_work, names) AS (VALUES
    ('',
     '',
     ['cc-pdm', 'cc-pdm-1.0', 'cc0', 'cc0-1.0', 'in-house', 'licenseref-own',
      'licenseref-see-adapter', 'own', 'own-photo', 'own-photos', 'own-work', 'own-works', 'pdm',
      'public-domain', 'see-adapter', 'see-adapter.json', 'work-for-hire']),
    ('',
     'credit',
     ['apache-2.0', 'apache2', 'bsd-2-clause', 'bsd-3-clause', 'cc-by-1.0', 'cc-by-2.0',
      'cc-by-2.5', 'cc-by-3.0', 'cc-by-4.0', 'isc', 'mit']),
    ('',
     'credit, share alike',
     ['cc-by-sa-1.0', 'cc-by-sa-2.0', 'cc-by-sa-2.5', 'cc-by-sa-3.0', 'cc-by-sa-4.0']),
    ('',
     'no derivatives, credit',
     ['cc-by-nd-1.0', 'cc-by-nd-2.0', 'cc-by-nd-2.5', 'cc-by-nd-3.0', 'cc-by-nd-4.0']),
    ('no commercial use',
     'no commercial use',
     ['flux-1-dev-non-commercial', 'flux-1-dev-non-commercial-license', 'flux-dev-non-commercial',
      'flux.1-dev-non-commercial', 'sai-nc-community', 'stability-ai-non-commercial-research',
      'stabilityai-nc-research-community', 'stable-video-diffusion-nc-community']),
    ('no commercial use',
     'no commercial use, credit',
     ['cc-by-nc-1.0', 'cc-by-nc-2.0', 'cc-by-nc-2.5', 'cc-by-nc-3.0', 'cc-by-nc-4.0']),
    ('no commercial use',
     'no commercial use, credit, share alike',
     ['cc-by-nc-sa-1.0', 'cc-by-nc-sa-2.0', 'cc-by-nc-sa-2.5', 'cc-by-nc-sa-3.0',
      'cc-by-nc-sa-4.0']),
    ('no commercial use',
     'no commercial use, no derivatives, credit',
     ['cc-by-nc-nd-1.0', 'cc-by-nc-nd-2.0', 'cc-by-nc-nd-2.5', 'cc-by-nc-nd-3.0',
      'cc-by-nc-nd-4.0']),
    ('pass on its use restrictions',
     'pass on its use restrictions',
     ['bigscience-bloom-rail-1.0', 'bigscience-openrail-m', 'bigscience-rail-1.0',
      'creativeml-open-rail++-m', 'creativeml-openrail++-m', 'creativeml-openrail-m',
      'creativeml-openrail-m-1.0', 'gemma', 'gemma-terms', 'gemma-terms-of-use', 'openrail',
      'openrail++', 'openrail++-m', 'openrail-m']),
    ('pass on its use restrictions, nothing granted in EU',
     'pass on its use restrictions, nothing granted in EU',
     ['hunyuan-community', 'tencent-hunyuan-community']),
    ('pass on its use restrictions, revenue below USD 1,000,000',
     'pass on its use restrictions, revenue below USD 1,000,000',
     ['sai-community', 'stability-ai-community', 'stability-ai-community-license',
      'stabilityai-ai-community', 'stabilityai-community'])),
demanded AS (SELECT of_model, of_work, unnest(names) AS named FROM known),
named AS (
    SELECT request_key, attempt
    FROM raw.images ANTI JOIN raw.superseded USING (request_key, attempt)
    WHERE sku = $asset OR starts_with(request_id, lower($asset))
    ORDER BY recorded_at DESC, request_id LIMIT $limit),
wanted AS (
    SELECT request_id, attempt, sku, "index", model, model_revision, recipe, recorded_at
    FROM raw.images SEMI JOIN named USING (request_key, attempt)),
steps AS (
    SELECT request_id, model, model_revision AS revision, recipe AS step FROM wanted
    UNION ALL
    SELECT request_id, step ->> '$.model', step ->> '$.model_revision', step
    FROM (SELECT request_id, unnest(CAST(recipe -> '$.earlier' AS JSON[])) AS step FROM wanted
          WHERE recipe IS NOT NULL)),
parts AS (
    SELECT request_id, 'control' AS part, unnest(CAST(step -> '$.controls' AS JSON[])) AS used
    FROM steps
    UNION ALL
    SELECT request_id, 'adapter', unnest(CAST(step -> '$.adapters' AS JSON[])) FROM steps
    UNION ALL
    SELECT request_id, 'region', step -> '$.region' FROM steps
    WHERE (step -> '$.region') IS NOT NULL),
used AS (
    SELECT DISTINCT * FROM (
        SELECT request_id, 'model' AS part, model, revision FROM steps
        UNION ALL
        SELECT request_id, part, used ->> '$.model', used ->> '$.model_revision' FROM parts
        WHERE part <> 'region'
        UNION ALL
        SELECT request_id, 'tool', used ->> '$.tool', used ->> '$.tool_revision' FROM parts
        WHERE used ->> '$.tool' <> '')),
behind AS (
    SELECT u.request_id, u.part, u.model AS name, m.licence, 1 AS pictures, NULL AS credit
    FROM used AS u LEFT JOIN models AS m ON m.name = u.model AND m.revision = u.revision
    UNION ALL
    SELECT u.request_id, 'training picture', u.model, t.licence, count(*), NULL
    FROM used AS u JOIN training_images AS t ON t.adapter = u.model AND t.revision = u.revision
    GROUP BY ALL
    UNION ALL
    SELECT i.request_id, 'input', i.name, l.licence, 1, l.credit
    FROM (SELECT DISTINCT request_id, name, sha256 FROM raw.inputs
          SEMI JOIN wanted USING (request_id, attempt) WHERE source = 'file') AS i
    LEFT JOIN input_licences AS l USING (sha256))
SELECT w.sku, w."index", b.part, b.name, b.licence,
       CASE WHEN b.licence IS NULL THEN 'no licence is known'
            WHEN d.named IS NULL THEN 'not in the table of licences'
            WHEN b.part IN ('input', 'training picture') THEN d.of_work
            ELSE d.of_model END AS demands,
       b.credit, b.pictures, b.request_id
FROM wanted AS w JOIN behind AS b USING (request_id)
LEFT JOIN demanded AS d
    ON d.named = regexp_replace(lower(trim(b.licence)), '[\s_-]+', '-', 'g')
ORDER BY w.recorded_at DESC, w.sku, w."index", b.part, b.name, b.licence LIMIT $limit
