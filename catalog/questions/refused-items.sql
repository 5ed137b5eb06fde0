-- Items that a run went on without, and every fault of them
-- $days = 365: how many days back
-- $limit = 1000: at most so many
SELECT f.refused_at, r.brief, f.sku, f.place, f.fault, f.remedy, f.run_id
FROM refused_items AS f LEFT JOIN runs AS r USING (run_id)
WHERE f.refused_at >= now() - to_days($days::INTEGER)
ORDER BY f.refused_at DESC, f.sku LIMIT $limit
