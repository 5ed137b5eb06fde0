-- What waits for a person's decision, oldest first
SELECT recorded_at, sku, "index", campaign,
       list_transform(reasons, lambda one: one.text) AS reviewed_for,
       policy, policy_version, url, sha256, request_id
FROM images
WHERE outcome = 'review' AND decision IS NULL
ORDER BY recorded_at, sku, "index"
