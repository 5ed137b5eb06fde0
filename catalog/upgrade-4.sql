-- Version 4: one wide row an attempt, the ledger, durable credentials, channel packs, time stamps.
-- What earlier versions spread over raw.requests, scores, verdicts and assets. Only who writes makes
-- tables of it (catalog/lake.py); who reads has these as views.
CREATE VIEW raw.measured_before_4 AS
SELECT request_id, attempt, measured_at,
       left(sha256(to_json(list({'check_name': check_name, 'name': name, 'detector': detector,
                                 'revision': revision}
                                ORDER BY check_name, name, detector, revision))::VARCHAR), 16)
           AS signature,
       list({'check_name': check_name, 'name': name, 'detector': detector, 'revision': revision}
            ORDER BY check_name, name, detector, revision) AS scores,
       list(value ORDER BY check_name, name, detector, revision) AS "values",
       list(evidence ORDER BY check_name, name, detector, revision) AS evidence
FROM (
    SELECT request_id, attempt, check_name, name, value, evidence, measured_at,
           coalesce(detector, evidence ->> '$.detector') AS detector,
           coalesce(revision, evidence ->> '$.weights_sha256', evidence ->> '$.revision')
               AS revision
    FROM (
        SELECT *, NULL::TIMESTAMPTZ AS measured_at FROM raw.scores
        UNION ALL BY NAME
        -- A set that was measured again holds the other scores too.
        SELECT s.*, r.measured_at FROM raw.scores AS s
        JOIN (SELECT request_id, attempt, max(measured_at) AS measured_at FROM raw.rescores
              GROUP BY ALL) AS r USING (request_id, attempt)
        ANTI JOIN raw.rescores AS n USING (request_id, attempt, check_name, name)
        UNION ALL BY NAME
        SELECT * REPLACE (max(measured_at) OVER (PARTITION BY request_id, attempt) AS measured_at)
        FROM raw.rescores
        QUALIFY rank() OVER (PARTITION BY request_id, attempt, check_name, name
                             ORDER BY measured_at DESC) = 1))
GROUP BY request_id, attempt, measured_at;
CREATE VIEW raw.images_before_4 AS
SELECT r.request_id, left(r.request_id, 32)::UUID AS request_key, r.attempt, r.run_id, r.batch_id,
       r.state, r.error, r.recorded_at, r.milliseconds,
       (r.milliseconds ->> '$.generate')::DOUBLE AS generate_ms, r.sku, r."index", r.campaign,
       r.client, r.mode, r.model, r.model_revision, r.prompt, r.prompt_sha256, r.negative_prompt,
       r.seed, r.width, r.height, r.steps, r.guidance, r.scheduler, r.terms, r.terms_id, r.expires,
       r.recipe, coalesce(s.signature, left(sha256('[]'), 16)) AS signature,
       coalesce(s."values", []) AS "values",
       coalesce(s.evidence, []) AS evidence, v.outcome, v.policy, v.policy_version, v.policy_digest,
       v.reasons, a.sha256, a.state AS asset_state, a.url, a.mime, a.width AS made_width,
       a.height AS made_height, a.size, a.pixels_sha256, a.perceptual_hash, m.label AS c2pa_label,
       m.certificate, NULL::DOUBLE AS duplicate_distance, NULL::DOUBLE AS nearest_pdq,
       NULL::DOUBLE AS nearest_clip, NULL::DOUBLE AS nearest_descriptor, NULL::TINYINT AS urgency
FROM raw.requests AS r
LEFT JOIN (FROM raw.measured_before_4 WHERE measured_at IS NULL) AS s USING (request_id, attempt)
LEFT JOIN raw.verdicts AS v USING (request_id, attempt)
LEFT JOIN (FROM raw.assets WHERE made_by = 'run') AS a USING (request_id, attempt)
LEFT JOIN raw.manifests AS m ON m.request_id = r.request_id AND m.attempt = r.attempt
                            AND m.asset_sha256 = a.sha256;
CREATE VIEW raw.signatures_before_4 AS
SELECT DISTINCT signature, scores FROM raw.measured_before_4
UNION ALL SELECT left(sha256('[]'), 16), [];
CREATE VIEW raw.rescored_before_4 AS
SELECT * EXCLUDE (scores), NULL::DOUBLE AS duplicate_distance, NULL::DOUBLE AS nearest_pdq,
       NULL::DOUBLE AS nearest_clip, NULL::DOUBLE AS nearest_descriptor
FROM raw.measured_before_4 WHERE measured_at IS NOT NULL;
CREATE VIEW raw.later_files_before_4 AS
SELECT a.*, m.label AS c2pa_label, m.certificate FROM raw.assets AS a
LEFT JOIN raw.manifests AS m ON m.request_id = a.request_id AND m.attempt = a.attempt
                            AND m.asset_sha256 = a.sha256
WHERE a.made_by <> 'run';
CREATE TABLE raw.superseded_attempts (request_id VARCHAR, request_key UUID, attempt VARCHAR);
CREATE TABLE raw.settled (attempt VARCHAR);
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
ALTER TABLE raw.packs ADD COLUMN channel VARCHAR;
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
ALTER TABLE raw.inputs ADD COLUMN salt BLOB;
ALTER TABLE raw.manifests ADD COLUMN salt BLOB;
ALTER TABLE raw.library_works ADD COLUMN salt BLOB;
ALTER TABLE raw.reviews ADD COLUMN salt BLOB;
ALTER TABLE raw.library_removals ADD COLUMN salt BLOB;
ALTER TABLE raw.training_images ADD COLUMN salt BLOB;
ALTER TABLE raw.packs ADD COLUMN salt BLOB;
ALTER TABLE raw.replayed_verdicts ADD COLUMN salt BLOB;
ALTER TABLE raw.refused_items ADD COLUMN salt BLOB;
ALTER TABLE raw.pack_refusals ADD COLUMN salt BLOB;
