-- After upgrade-4.sql, where the gathered rows have become tables: what they were gathered from.
DROP VIEW raw.images_before_4;
DROP VIEW raw.signatures_before_4;
DROP VIEW raw.rescored_before_4;
DROP VIEW raw.later_files_before_4;
DROP VIEW raw.measured_before_4;
DROP VIEW IF EXISTS raw.latest_rescores;
DROP VIEW IF EXISTS raw.latest_terms;
DROP VIEW IF EXISTS raw.decisions;
DROP TABLE raw.requests;
DROP TABLE raw.scores;
DROP TABLE raw.rescores;
DROP TABLE raw.verdicts;
DROP TABLE raw.assets;
ALTER TABLE raw.images ADD COLUMN salt BLOB;
ALTER TABLE raw.rescored ADD COLUMN salt BLOB;
