-- Cleared images whose usage terms expire within some days or have, and the packs they are in
-- $days = 30: how many days ahead
SELECT i.expires, date_diff('day', current_date, i.expires) AS days_left, i.sku, i."index",
       i.campaign, i.client, i.terms_id, p.packs, i.sha256, i.request_id
FROM images AS i
LEFT JOIN (SELECT request_id, list(DISTINCT pack_id ORDER BY pack_id) AS packs
           FROM pack_assets GROUP BY request_id) AS p USING (request_id)
WHERE i.cleared AND i.expires <= current_date + $days::INTEGER
ORDER BY i.expires, i.sku, i."index"
