-- All exported packs: what they hold, under which terms, and how much was left out
-- $limit = 1000: at most so many
SELECT pack_id, created_at, file, images, left_out, terms_id, licensee, expires, "where", size,
       sha256
FROM packs ORDER BY created_at DESC, file LIMIT $limit
