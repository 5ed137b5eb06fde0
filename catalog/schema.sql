-- The catalog's tables (schema raw, append-only); views.sql has the views that people read.
--
-- DuckLake has no keys, so a request may be recorded more than once: tried again after a failure,
-- or made by two runs at once. Each record is an attempt, named by a key that sorts by time; the
-- first finished attempt counts, failing that the last failed one (raw.current). Nothing is
-- deleted: `attempts` shows the others too.

-- A row's `salt` lets single values of it be erased while the ledger still holds
-- (catalog/ledger.py).

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
-- One row an attempt, wide: what was asked for, its scores, the verdict, and the file that the run
-- left. All of it is known when it is committed, so that audits need not join. `request_key` is the
-- first half of `request_id`. Scores are two lists, named by the row of raw.signatures: 10,000,000
-- images have some 100,000,000 scores and a few dozen signatures. What audits rank by has columns
-- (catalog/ranks.py).
CREATE TABLE raw.images (
    request_id VARCHAR, request_key UUID, attempt VARCHAR, run_id VARCHAR, batch_id VARCHAR,
    state VARCHAR, error VARCHAR, recorded_at TIMESTAMPTZ, milliseconds JSON, generate_ms DOUBLE,
    sku VARCHAR, "index" BIGINT, campaign VARCHAR, client VARCHAR, mode VARCHAR,
    model VARCHAR, model_revision VARCHAR, prompt VARCHAR, prompt_sha256 VARCHAR,
    negative_prompt VARCHAR, seed BIGINT, width INTEGER, height INTEGER, steps INTEGER,
    guidance DOUBLE, scheduler VARCHAR, terms JSON, terms_id VARCHAR, expires DATE, recipe JSON,
    signature VARCHAR, "values" DOUBLE[], evidence JSON[], duplicate_distance DOUBLE,
    nearest_pdq DOUBLE, nearest_clip DOUBLE, nearest_descriptor DOUBLE,
    outcome VARCHAR, urgency TINYINT, policy VARCHAR, policy_version VARCHAR, policy_digest VARCHAR,
    reasons STRUCT(outcome VARCHAR, rule VARCHAR, "text" VARCHAR, score DOUBLE, bound DOUBLE,
                   evidence JSON, severity VARCHAR, declared VARCHAR, detector VARCHAR,
                   revision VARCHAR)[],
    sha256 VARCHAR, asset_state VARCHAR, url VARCHAR, mime VARCHAR, made_width INTEGER,
    made_height INTEGER, size BIGINT, pixels_sha256 VARCHAR, perceptual_hash VARCHAR,
    c2pa_label VARCHAR, certificate VARCHAR, salt BLOB);
-- What the scores of an image are, by place in its lists.
CREATE TABLE raw.signatures (
    signature VARCHAR,
    scores STRUCT(check_name VARCHAR, name VARCHAR, detector VARCHAR, revision VARCHAR)[]);
-- All scores of an image after some were measured again.
CREATE TABLE raw.rescored (
    request_id VARCHAR, attempt VARCHAR, signature VARCHAR, "values" DOUBLE[], evidence JSON[],
    duplicate_distance DOUBLE, nearest_pdq DOUBLE, nearest_clip DOUBLE, nearest_descriptor DOUBLE,
    measured_at TIMESTAMPTZ, salt BLOB);
-- Files made later than by the run: of an approved image, of one that a replay let pass.
CREATE TABLE raw.later_files (
    request_id VARCHAR, attempt VARCHAR, made_by VARCHAR, sha256 VARCHAR, state VARCHAR,
    url VARCHAR, mime VARCHAR, width INTEGER, height INTEGER, size BIGINT, pixels_sha256 VARCHAR,
    perceptual_hash VARCHAR, c2pa_label VARCHAR, certificate VARCHAR, recorded_at TIMESTAMPTZ);
-- Attempts that do not count, among those that upkeep has compared with all others (raw.settled).
CREATE TABLE raw.superseded_attempts (request_id VARCHAR, request_key UUID, attempt VARCHAR);
CREATE TABLE raw.settled (attempt VARCHAR);
CREATE TABLE raw.inputs (
    request_id VARCHAR, attempt VARCHAR, step INTEGER, role VARCHAR, source VARCHAR,
    name VARCHAR, sha256 VARCHAR, mime VARCHAR, source_request_id VARCHAR, c2pa_state VARCHAR,
    c2pa_label VARCHAR, restrictions VARCHAR[], salt BLOB);
CREATE TABLE raw.training_images (
    adapter VARCHAR, revision VARCHAR, file VARCHAR, sha256 VARCHAR, title VARCHAR,
    rights_holder VARCHAR, licence VARCHAR, waiver VARCHAR, registered_at TIMESTAMPTZ, salt BLOB);
CREATE TABLE raw.refused_items (
    run_id VARCHAR, sku VARCHAR, place VARCHAR, fault VARCHAR, remedy VARCHAR,
    refused_at TIMESTAMPTZ, salt BLOB);
CREATE TABLE raw.terms (
    request_id VARCHAR, terms JSON, terms_id VARCHAR, expires DATE, recorded_at TIMESTAMPTZ);
CREATE TABLE raw.replays (
    replay_id VARCHAR, policy VARCHAR, policy_version VARCHAR, policy_digest VARCHAR,
    "where" VARCHAR, judged BIGINT, changed BIGINT, applied_by VARCHAR, applied_at TIMESTAMPTZ);
CREATE TABLE raw.replayed_verdicts (
    replay_id VARCHAR, request_id VARCHAR, attempt VARCHAR, outcome VARCHAR, policy VARCHAR,
    policy_version VARCHAR, policy_digest VARCHAR,
    reasons STRUCT(outcome VARCHAR, rule VARCHAR, "text" VARCHAR, score DOUBLE, bound DOUBLE,
                   evidence JSON, severity VARCHAR, declared VARCHAR, detector VARCHAR,
                   revision VARCHAR)[],
    decided_at TIMESTAMPTZ, salt BLOB);
CREATE TABLE raw.manifests (
    request_id VARCHAR, attempt VARCHAR, asset_sha256 VARCHAR, label VARCHAR, certificate VARCHAR,
    manifest BLOB, recorded_at TIMESTAMPTZ, salt BLOB);
CREATE TABLE raw.reviews (
    review_id VARCHAR, request_id VARCHAR, attempt VARCHAR, decision VARCHAR, reviewer VARCHAR,
    reason VARCHAR, decided_at TIMESTAMPTZ, asset_sha256 VARCHAR, roles VARCHAR[],
    expires TIMESTAMPTZ, rules VARCHAR[], salt BLOB);
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
    added_at TIMESTAMPTZ, salt BLOB);
CREATE TABLE raw.library_removals (
    library VARCHAR, work_id BIGINT, reason VARCHAR, removed_by VARCHAR, removed_at TIMESTAMPTZ,
    salt BLOB);
CREATE TABLE raw.library_checks (
    library VARCHAR, checked_by VARCHAR, checked_at TIMESTAMPTZ);
CREATE TABLE raw.packs (
    pack_id VARCHAR, file VARCHAR, sha256 VARCHAR, size BIGINT, images BIGINT, left_out BIGINT,
    "where" VARCHAR, terms JSON, terms_id VARCHAR, licensee VARCHAR, expires DATE,
    created_at TIMESTAMPTZ, channel VARCHAR, salt BLOB);
CREATE TABLE raw.pack_assets (
    pack_id VARCHAR, request_id VARCHAR, asset_sha256 VARCHAR, file VARCHAR);
CREATE TABLE raw.pack_refusals (
    pack_id VARCHAR, created_at TIMESTAMPTZ, request_id VARCHAR, sku VARCHAR, reason VARCHAR,
    salt BLOB);
-- The ledger (catalog/ledger_entries.py). The order of entries is that of their row ids.
CREATE TABLE raw.ledger_entries (
    commit_id VARCHAR, kind VARCHAR, table_name VARCHAR, row_count BIGINT, root BLOB,
    entered_at TIMESTAMPTZ, keys_sha256 BLOB, row_hashes BLOB, row_keys VARCHAR);
CREATE TABLE raw.ledger_checkpoints ("size" BIGINT, peaks BLOB, checkpoint VARCHAR);
CREATE TABLE raw.ledger_erasures (
    erasure_id BLOB, table_name VARCHAR, row_key VARCHAR, erased VARCHAR[], file_sha256 VARCHAR,
    kept JSON, reason VARCHAR, erased_by VARCHAR, erased_at TIMESTAMPTZ, signature BLOB);
-- Channel packs: files made for a channel from a signed asset, and what was taken back.
CREATE TABLE raw.renditions (
    request_id VARCHAR, original_sha256 VARCHAR, recipe JSON, sha256 VARCHAR, url VARCHAR,
    mime VARCHAR, width INTEGER, height INTEGER, size BIGINT, actions VARCHAR[], label VARCHAR,
    certificate VARCHAR, manifest BLOB, sdk VARCHAR, made_at TIMESTAMPTZ, salt BLOB);
CREATE TABLE raw.revocations (
    revocation_id VARCHAR, kind VARCHAR, pack_id VARCHAR, request_id VARCHAR,
    asset_sha256 VARCHAR, reason VARCHAR, revoked_by VARCHAR, revoked_at TIMESTAMPTZ, salt BLOB);
-- What input pictures say of their own licence (catalog/licensing.py), once for their bytes.
CREATE TABLE raw.input_licences (
    sha256 VARCHAR, licence VARCHAR, credit VARCHAR, says VARCHAR, registered_at TIMESTAMPTZ);
-- What `verify --record` said of files, and which version of the verifier said it.
CREATE TABLE raw.verifications (
    sha256 VARCHAR, state VARCHAR, decodes BOOLEAN, trust_list VARCHAR, verifier VARCHAR,
    verified_at TIMESTAMPTZ);
-- Time stamps (catalog/stamp.py): signed files that an authority owes one, and those given later.
CREATE TABLE raw.stamps_owed (asset_sha256 VARCHAR, owed_since TIMESTAMPTZ);
CREATE TABLE raw.stamps (
    asset_sha256 VARCHAR, request_id VARCHAR, stamped_sha256 VARCHAR, authority VARCHAR,
    stamped_at TIMESTAMPTZ);
-- Durable credentials (catalog/fingerprints.py): what finds a signed file that lost its metadata.
CREATE TABLE raw.fingerprints (
    request_id VARCHAR, asset_sha256 VARCHAR, label VARCHAR, watermark UBIGINT, pdq_0 UBIGINT,
    pdq_1 UBIGINT, pdq_2 UBIGINT, pdq_3 UBIGINT, middle_0 UBIGINT, middle_1 UBIGINT,
    middle_2 UBIGINT, middle_3 UBIGINT, iscc VARCHAR, recorded_at TIMESTAMPTZ);
