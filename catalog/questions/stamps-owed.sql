-- Signed files that still lack a time stamp, since when; `platemark stamp` makes up for it
-- $limit = 100: at most so many
WITH owed AS (
    FROM stamps_owed ORDER BY owed_since, asset_sha256 LIMIT $limit),
found AS (
    SELECT request_key, attempt FROM raw.images
    SEMI JOIN (SELECT asset_sha256 AS sha256 FROM owed) USING (sha256)),
files AS (
    SELECT sha256, request_id, url
    FROM raw.images SEMI JOIN found USING (request_key, attempt)
    ANTI JOIN raw.superseded USING (request_key, attempt)
    UNION
    SELECT sha256, request_id, url
    FROM raw.later_files ANTI JOIN raw.superseded USING (request_id, attempt)
    UNION
    SELECT sha256, request_id, url FROM raw.renditions)
SELECT o.owed_since, a.request_id, o.asset_sha256, a.url
FROM owed AS o LEFT JOIN files AS a ON a.sha256 = o.asset_sha256
ORDER BY o.owed_since, o.asset_sha256
LIMIT $limit
