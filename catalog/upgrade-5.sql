-- Version 5: columns of their own for what audits rank by. Rows that are there keep NULL in them, since
-- the ledger holds what they were; the view raw.ranked knows.
ALTER TABLE raw.images ADD COLUMN duplicate_distance DOUBLE;
ALTER TABLE raw.images ADD COLUMN nearest_pdq DOUBLE;
ALTER TABLE raw.images ADD COLUMN nearest_clip DOUBLE;
ALTER TABLE raw.images ADD COLUMN nearest_descriptor DOUBLE;
ALTER TABLE raw.images ADD COLUMN urgency TINYINT;
ALTER TABLE raw.rescored ADD COLUMN duplicate_distance DOUBLE;
ALTER TABLE raw.rescored ADD COLUMN nearest_pdq DOUBLE;
ALTER TABLE raw.rescored ADD COLUMN nearest_clip DOUBLE;
ALTER TABLE raw.rescored ADD COLUMN nearest_descriptor DOUBLE;
