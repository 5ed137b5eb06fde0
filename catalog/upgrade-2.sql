-- Version 2: images made from others, adapters and what they were trained on, refused items.
ALTER TABLE raw.requests ADD COLUMN recipe JSON;
CREATE TABLE raw.inputs (
    request_id VARCHAR, attempt VARCHAR, step INTEGER, role VARCHAR, source VARCHAR,
    name VARCHAR, sha256 VARCHAR, mime VARCHAR, source_request_id VARCHAR, c2pa_state VARCHAR,
    c2pa_label VARCHAR, restrictions VARCHAR[]);
CREATE TABLE raw.training_images (
    adapter VARCHAR, revision VARCHAR, file VARCHAR, sha256 VARCHAR, title VARCHAR,
    rights_holder VARCHAR, licence VARCHAR, waiver VARCHAR, registered_at TIMESTAMPTZ);
CREATE TABLE raw.refused_items (
    run_id VARCHAR, sku VARCHAR, place VARCHAR, fault VARCHAR, remedy VARCHAR,
    refused_at TIMESTAMPTZ);
