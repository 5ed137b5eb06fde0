-- Signed files that still lack a time stamp, since when; `platemark stamp` makes up for it
-- $limit = 1000: at most so many
SELECT o.owed_since, a.request_id, o.asset_sha256, a.url
FROM stamps_owed AS o LEFT JOIN assets AS a ON a.sha256 = o.asset_sha256
ORDER BY o.owed_since, o.asset_sha256
LIMIT $limit
