-- What a replay let pass and nobody has signed yet, oldest first
-- $limit = 100: at most so many
WITH waiting AS (
    SELECT request_key, attempt FROM raw.counted
    WHERE outcome = 'pass' AND asset_state = 'quarantined'
      AND decision IS DISTINCT FROM 'reject' AND erased IS NULL
    ORDER BY recorded_at, sku, "index" LIMIT $limit)
SELECT recorded_at, sku, "index", campaign, policy, policy_version, url, sha256, request_id
FROM raw.counted SEMI JOIN waiting USING (request_key, attempt)
ORDER BY recorded_at, sku, "index"
