-- Cleared images whose usage terms expire within some days or have, and the packs they are in
-- $days = 30: how many days ahead
-- $limit = 100: at most so many
WITH ending AS (
    SELECT request_key, attempt, expires, sku, "index", terms_id, remade_sha256 FROM raw.counted
    WHERE cleared AND expires <= current_date + $days::INTEGER
    ORDER BY expires, sku, "index" LIMIT $limit),
told AS (
    SELECT e.expires, e.sku, e."index", r.campaign, r.client, e.terms_id,
           coalesce(e.remade_sha256, r.sha256) AS sha256, r.request_id
    FROM ending AS e JOIN raw.images AS r USING (request_key, attempt))
SELECT e.expires, date_diff('day', current_date, e.expires) AS days_left, e.sku, e."index",
       e.campaign, e.client, e.terms_id, p.packs, e.sha256, e.request_id
FROM told AS e
LEFT JOIN (SELECT request_id, list(DISTINCT pack_id ORDER BY pack_id) AS packs
           FROM pack_assets SEMI JOIN told USING (request_id) GROUP BY request_id) AS p
    USING (request_id)
ORDER BY e.expires, e.sku, e."index"
