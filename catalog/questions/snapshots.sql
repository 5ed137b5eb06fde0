-- The commits that the catalog can be asked as of (audit --as-of), the last one first
-- $limit = 1000: at most so many
SELECT snapshot_time AS as_of, snapshot_id AS snapshot, schema_version,
       array_to_string(map_keys(changes), ', ') AS changes
FROM ducklake_snapshots('lake') ORDER BY snapshot_id DESC LIMIT $limit
