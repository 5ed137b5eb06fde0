-- The catalog's tables (schema raw, append-only); views.sql has the views that people read.
--
-- DuckLake has no keys, so a request may be recorded more than once: tried again after a failure,
-- or made by two runs at once. Each record is an attempt, named by a key that sorts by time; the
-- first finished attempt counts, failing that the last failed one (raw.current). Nothing is
-- deleted: `attempts` shows the others too.

CREATE SCHEMA raw;

CREATE TABLE raw.schema_version (version INTEGER, created_at TIMESTAMPTZ);

CREATE TABLE raw.runs (
    run_id VARCHAR, started_at TIMESTAMPTZ, host VARCHAR, device VARCHAR, versions JSON,
    brief VARCHAR, brief_sha256 VARCHAR, policy VARCHAR, policy_version VARCHAR,
    policy_digest VARCHAR, requested BIGINT);
CREATE TABLE raw.run_ends (
    run_id VARCHAR, status VARCHAR, finished_at TIMESTAMPTZ, detail VARCHAR);
CREATE TABLE raw.batches (
    run_id VARCHAR, batch_id VARCHAR, attempt VARCHAR, images BIGINT, failed BIGINT,
    committed_at TIMESTAMPTZ);
CREATE TABLE raw.requests (
    request_id VARCHAR, attempt VARCHAR, run_id VARCHAR, batch_id VARCHAR,
    state VARCHAR, error VARCHAR, recorded_at TIMESTAMPTZ, milliseconds JSON,
    sku VARCHAR, "index" BIGINT, campaign VARCHAR, client VARCHAR, mode VARCHAR,
    model VARCHAR, model_revision VARCHAR, prompt VARCHAR, prompt_sha256 VARCHAR,
    negative_prompt VARCHAR, seed BIGINT, width INTEGER, height INTEGER, steps INTEGER,
    guidance DOUBLE, scheduler VARCHAR, terms JSON, terms_id VARCHAR, expires DATE, recipe JSON);
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
CREATE TABLE raw.terms (
    request_id VARCHAR, terms JSON, terms_id VARCHAR, expires DATE, recorded_at TIMESTAMPTZ);
CREATE TABLE raw.scores (
    request_id VARCHAR, attempt VARCHAR, check_name VARCHAR, name VARCHAR, value DOUBLE,
    evidence JSON, detector VARCHAR, revision VARCHAR);
CREATE TABLE raw.rescores (
    request_id VARCHAR, attempt VARCHAR, check_name VARCHAR, name VARCHAR, value DOUBLE,
    evidence JSON, detector VARCHAR, revision VARCHAR, measured_at TIMESTAMPTZ);
CREATE TABLE raw.verdicts (
    request_id VARCHAR, attempt VARCHAR, outcome VARCHAR, policy VARCHAR, policy_version VARCHAR,
    policy_digest VARCHAR,
    reasons STRUCT(outcome VARCHAR, rule VARCHAR, "text" VARCHAR, score DOUBLE, bound DOUBLE,
                   evidence JSON, severity VARCHAR, declared VARCHAR, detector VARCHAR,
                   revision VARCHAR)[],
    decided_at TIMESTAMPTZ);
CREATE TABLE raw.replays (
    replay_id VARCHAR, policy VARCHAR, policy_version VARCHAR, policy_digest VARCHAR,
    "where" VARCHAR, judged BIGINT, changed BIGINT, applied_by VARCHAR, applied_at TIMESTAMPTZ);
CREATE TABLE raw.replayed_verdicts (
    replay_id VARCHAR, request_id VARCHAR, attempt VARCHAR, outcome VARCHAR, policy VARCHAR,
    policy_version VARCHAR, policy_digest VARCHAR,
    reasons STRUCT(outcome VARCHAR, rule VARCHAR, "text" VARCHAR, score DOUBLE, bound DOUBLE,
                   evidence JSON, severity VARCHAR, declared VARCHAR, detector VARCHAR,
                   revision VARCHAR)[],
    decided_at TIMESTAMPTZ);
CREATE TABLE raw.assets (
    request_id VARCHAR, attempt VARCHAR, made_by VARCHAR, sha256 VARCHAR, state VARCHAR,
    url VARCHAR, mime VARCHAR, width INTEGER, height INTEGER, size BIGINT, pixels_sha256 VARCHAR,
    perceptual_hash VARCHAR, recorded_at TIMESTAMPTZ);
CREATE TABLE raw.manifests (
    request_id VARCHAR, attempt VARCHAR, asset_sha256 VARCHAR, label VARCHAR, certificate VARCHAR,
    manifest BLOB, recorded_at TIMESTAMPTZ);
CREATE TABLE raw.reviews (
    review_id VARCHAR, request_id VARCHAR, attempt VARCHAR, decision VARCHAR, reviewer VARCHAR,
    reason VARCHAR, decided_at TIMESTAMPTZ, asset_sha256 VARCHAR, roles VARCHAR[],
    expires TIMESTAMPTZ, rules VARCHAR[]);
CREATE TABLE raw.policies (
    digest VARCHAR, name VARCHAR, version VARCHAR, "text" VARCHAR, registered_at TIMESTAMPTZ);
CREATE TABLE raw.models (
    name VARCHAR, revision VARCHAR, licence VARCHAR, source VARCHAR, weights_sha256 VARCHAR,
    details JSON, registered_at TIMESTAMPTZ);
CREATE TABLE raw.reference_works (
    library VARCHAR, library_digest VARCHAR, file VARCHAR, title VARCHAR, rights_holder VARCHAR,
    licence VARCHAR, role VARCHAR, note VARCHAR, sha256 VARCHAR, registered_at TIMESTAMPTZ);
CREATE TABLE raw.libraries (
    library VARCHAR, note VARCHAR, created_at TIMESTAMPTZ);
CREATE TABLE raw.library_works (
    library VARCHAR, work_id BIGINT, sha256 VARCHAR, file VARCHAR, title VARCHAR,
    rights_holder VARCHAR, licence VARCHAR, role VARCHAR, expires DATE, note VARCHAR,
    added_at TIMESTAMPTZ);
CREATE TABLE raw.library_removals (
    library VARCHAR, work_id BIGINT, reason VARCHAR, removed_by VARCHAR, removed_at TIMESTAMPTZ);
CREATE TABLE raw.library_checks (
    library VARCHAR, checked_by VARCHAR, checked_at TIMESTAMPTZ);
CREATE TABLE raw.packs (
    pack_id VARCHAR, file VARCHAR, sha256 VARCHAR, size BIGINT, images BIGINT, left_out BIGINT,
    "where" VARCHAR, terms JSON, terms_id VARCHAR, licensee VARCHAR, expires DATE,
    created_at TIMESTAMPTZ);
CREATE TABLE raw.pack_assets (
    pack_id VARCHAR, request_id VARCHAR, asset_sha256 VARCHAR, file VARCHAR);
CREATE TABLE raw.pack_refusals (
    pack_id VARCHAR, created_at TIMESTAMPTZ, request_id VARCHAR, sku VARCHAR, reason VARCHAR);
