-- Version 3: reference libraries, replays and rescores, approvals that expire, reasons that say where
-- their rule was declared and whose score it was.
ALTER TABLE raw.scores ADD COLUMN detector VARCHAR;
ALTER TABLE raw.scores ADD COLUMN revision VARCHAR;
ALTER TABLE raw.verdicts ADD COLUMN reasons.element.severity VARCHAR;
ALTER TABLE raw.verdicts ADD COLUMN reasons.element.declared VARCHAR;
ALTER TABLE raw.verdicts ADD COLUMN reasons.element.detector VARCHAR;
ALTER TABLE raw.verdicts ADD COLUMN reasons.element.revision VARCHAR;
ALTER TABLE raw.reviews ADD COLUMN roles VARCHAR[];
ALTER TABLE raw.reviews ADD COLUMN expires TIMESTAMPTZ;
ALTER TABLE raw.reviews ADD COLUMN rules VARCHAR[];
CREATE TABLE raw.rescores (
    request_id VARCHAR, attempt VARCHAR, check_name VARCHAR, name VARCHAR, value DOUBLE,
    evidence JSON, detector VARCHAR, revision VARCHAR, measured_at TIMESTAMPTZ);
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
