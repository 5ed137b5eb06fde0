-- What was exported under which terms: packs, images and licensees, and when the terms end
-- $limit = 1000: at most so many
SELECT coalesce(p.terms_id, 'none') AS terms_id, p.licensee, p.expires,
       count(DISTINCT p.pack_id) AS packs, count(a.request_id) AS files,
       count(DISTINCT a.request_id) AS images, min(p.created_at) AS first_export,
       max(p.created_at) AS last_export
FROM packs AS p LEFT JOIN pack_assets AS a USING (pack_id)
GROUP BY ALL ORDER BY last_export DESC, terms_id, p.licensee LIMIT $limit
