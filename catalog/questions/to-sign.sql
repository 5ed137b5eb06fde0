-- What a replay let pass and nobody has signed yet, oldest first
-- $limit = 1000: at most so many
SELECT recorded_at, sku, "index", campaign, policy, policy_version, url, sha256, request_id
FROM to_sign
ORDER BY recorded_at, sku, "index" LIMIT $limit
