-- Files that two versions of the verifier judged differently, with both judgements
-- $limit = 1000: at most so many
SELECT v.sha256, list(DISTINCT v.state || ' by ' || v.verifier ORDER BY v.state || ' by ' || v.verifier)
           AS judgements,
       min(v.verified_at) AS first_verified_at, max(v.verified_at) AS last_verified_at
FROM verifications AS v
GROUP BY v.sha256
HAVING count(DISTINCT v.state) > 1 AND count(DISTINCT v.verifier) > 1
ORDER BY last_verified_at DESC, v.sha256
LIMIT $limit
