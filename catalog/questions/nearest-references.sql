-- The nearest reference of each image by each signal, nearest first, with its title and whose it is
-- $library = "": only this library
-- $limit = 100: how many
SELECT i.sku, i."index", i.outcome, n.score, n.value, n.nearest ->> 'library' AS library,
       n.nearest ->> 'file' AS file, n.nearest ->> 'title' AS title,
       n.nearest ->> 'rights_holder' AS rights_holder, n.nearest ->> 'licence' AS licence,
       n.nearest ->> 'sha256' AS reference_sha256, i.request_id, i.sha256
FROM (SELECT request_id, score, value, evidence -> '$.nearest[0]' AS nearest FROM scores
      WHERE check_name IN ('similarity', 'copying')) AS n
JOIN images AS i USING (request_id)
WHERE n.nearest IS NOT NULL AND ($library = '' OR (n.nearest ->> 'library') = $library)
-- PDQ is a distance: the least is the nearest.
ORDER BY n.score, if(n.score LIKE '%.pdq%', -n.value, n.value) DESC, i.sku, i."index"
LIMIT $limit
