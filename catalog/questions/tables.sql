-- The tables and columns that --sql may ask
SELECT table_name AS "table", list(column_name || ' ' || data_type ORDER BY ordinal_position) AS columns
FROM information_schema.columns
WHERE table_catalog = 'lake' AND table_schema = 'main'
GROUP BY table_name ORDER BY table_name
