-- The nearest reference of each image by each signal, nearest first, with its title and whose it is
-- $library = "": only this library
-- $limit = 100: how many
WITH near AS (
    SELECT request_id, score, value, evidence -> '$.nearest[0]' AS nearest FROM scores
    WHERE check_name IN ('similarity', 'copying') AND (evidence -> '$.nearest[0]') IS NOT NULL
      AND ($library = '' OR (evidence ->> '$.nearest[0].library') = $library)
    -- PDQ is a distance: the least is the nearest.
    ORDER BY score, if(score LIKE '%.pdq%', -value, value) DESC, request_id LIMIT $limit)
SELECT i.sku, i."index", i.outcome, n.score, n.value, n.nearest ->> 'library' AS library,
       n.nearest ->> 'file' AS file, n.nearest ->> 'title' AS title,
       n.nearest ->> 'rights_holder' AS rights_holder, n.nearest ->> 'licence' AS licence,
       n.nearest ->> 'sha256' AS reference_sha256, n.request_id, i.sha256
FROM near AS n
JOIN (SELECT request_id, sku, "index", outcome, sha256 FROM images
      WHERE request_id IN (SELECT request_id FROM near)) AS i USING (request_id)
ORDER BY n.score, if(n.score LIKE '%.pdq%', -n.value, n.value) DESC, i.sku, i."index"
