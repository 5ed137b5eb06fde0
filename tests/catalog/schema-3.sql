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
-- The views that people read (schema main), over the tables of schema.sql.

CREATE OR REPLACE VIEW raw.current AS
SELECT request_id,
       coalesce(min(attempt) FILTER (state = 'done'), max(attempt)) AS attempt
FROM raw.requests GROUP BY request_id;

CREATE OR REPLACE VIEW raw.latest_terms AS
SELECT * FROM raw.terms
QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY recorded_at DESC) = 1;

-- One row a model and revision, as last registered.
CREATE OR REPLACE VIEW models AS
SELECT * FROM raw.models
QUALIFY row_number() OVER (PARTITION BY name, revision ORDER BY registered_at DESC) = 1;

-- One row a policy digest, with the policy's full text.
CREATE OR REPLACE VIEW policies AS
SELECT * FROM raw.policies
QUALIFY row_number() OVER (PARTITION BY digest ORDER BY registered_at) = 1;

-- The works that images are compared with, and what each counts as today (UTC): with the last day
-- of an own work's leave it becomes protected, with that of a protection a work no longer counts.
CREATE OR REPLACE VIEW "references" AS
SELECT *, CASE WHEN expires IS NULL OR expires >= current_date THEN role
               WHEN role = 'own' THEN 'protected' END AS counts_as
FROM raw.library_works ANTI JOIN raw.library_removals USING (library, work_id);

-- Works that were taken out of a library, or entered anew, with the reason.
CREATE OR REPLACE VIEW removed_references AS
SELECT w.library, w.work_id, w.sha256, w.file, w.title, w.rights_holder, w.role, w.added_at,
       r.reason, r.removed_by, r.removed_at
FROM raw.library_works AS w JOIN raw.library_removals AS r USING (library, work_id);

-- One row a reference library; `protected` and `own` are works that count as such today.
-- `checked_at`: when somebody last added to it or confirmed it.
CREATE OR REPLACE VIEW libraries AS
SELECT l.library, l.note, l.created_at, coalesce(w.works, 0) AS works,
       coalesce(w.protected, 0) AS protected, coalesce(w.own, 0) AS own,
       coalesce(w.expired, 0) AS expired,
       greatest(l.created_at, w.added_at, c.checked_at) AS checked_at
FROM (SELECT * FROM raw.libraries
      QUALIFY row_number() OVER (PARTITION BY library ORDER BY created_at) = 1) AS l
LEFT JOIN (SELECT library, count(*) AS works, max(added_at) AS added_at,
                  count(*) FILTER (counts_as = 'protected') AS protected,
                  count(*) FILTER (counts_as = 'own') AS own,
                  count(*) FILTER (expires < current_date) AS expired
           FROM "references" GROUP BY library) AS w USING (library)
LEFT JOIN (SELECT library, max(checked_at) AS checked_at FROM raw.library_checks
           GROUP BY library) AS c USING (library);

-- The works of libraries as versions before 3 recorded them, for verdicts that cite them.
CREATE OR REPLACE VIEW earlier_references AS SELECT * FROM raw.reference_works;

-- One row an execution of a flow. `unfinished`: at work, or interrupted.
CREATE OR REPLACE VIEW runs AS
SELECT runs.*,
       coalesce(ends.status, 'unfinished') AS status, ends.finished_at, ends.detail,
       coalesce(done.batches, 0) AS batches, coalesce(done.images, 0) AS images,
       coalesce(done.failed, 0) AS failed, done.last_commit_at
FROM (SELECT * FROM raw.runs
      QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY started_at) = 1) AS runs
LEFT JOIN (SELECT run_id, arg_max(status, finished_at) AS status, max(finished_at) AS finished_at,
                  arg_max(detail, finished_at) AS detail
           FROM raw.run_ends GROUP BY run_id) AS ends USING (run_id)
LEFT JOIN (SELECT run_id, count(*) AS batches, sum(images)::BIGINT AS images,
                  sum(failed)::BIGINT AS failed, max(committed_at) AS last_commit_at
           FROM raw.batches GROUP BY run_id) AS done USING (run_id);

-- One row a commit of a run.
CREATE OR REPLACE VIEW batches AS SELECT * FROM raw.batches;

-- Every time a request was tried; `counts` marks the one that the other views show.
CREATE OR REPLACE VIEW attempts AS
SELECT tried.request_id, tried.attempt, tried.attempt = current.attempt AS counts,
       tried.run_id, tried.batch_id, tried.state, tried.error, tried.recorded_at, tried.sku
FROM raw.requests AS tried JOIN raw.current AS current USING (request_id);

-- One row a request: what was asked for, its terms, and whether it was made.
CREATE OR REPLACE VIEW requests AS
SELECT r.request_id, r.sku, r."index", r.campaign, r.client, r.mode, r.model, r.model_revision,
       m.licence AS model_licence, r.prompt, r.prompt_sha256, r.negative_prompt, r.seed, r.width,
       r.height, r.steps, r.guidance, r.scheduler, r.recipe,
       CASE WHEN t.request_id IS NULL THEN r.terms ELSE t.terms END AS terms,
       CASE WHEN t.request_id IS NULL THEN r.terms_id ELSE t.terms_id END AS terms_id,
       CASE WHEN t.request_id IS NULL THEN r.expires ELSE t.expires END AS expires,
       r.state, r.error, r.run_id, r.batch_id, r.attempt, r.recorded_at, r.milliseconds
FROM raw.requests AS r
JOIN raw.current AS c ON c.request_id = r.request_id AND c.attempt = r.attempt
LEFT JOIN raw.latest_terms AS t ON t.request_id = r.request_id
LEFT JOIN models AS m ON m.name = r.model AND m.revision = r.model_revision;

-- One row a picture that an image was made from: `step` counts a chain's steps from 0, `source` is
-- file, asset (an image of this catalog, request source_request_id) or step (an earlier step).
CREATE OR REPLACE VIEW inputs AS
SELECT i.* EXCLUDE (attempt)
FROM raw.inputs AS i
JOIN raw.current AS c ON c.request_id = i.request_id AND c.attempt = i.attempt;

-- One row a model that had a part in an image's pixels: the model of each step, its ControlNets,
-- adapters and tools.
CREATE OR REPLACE VIEW models_used AS
WITH steps AS (
    SELECT request_id, model, model_revision, recipe FROM requests
    UNION ALL
    SELECT request_id, step ->> '$.model', step ->> '$.model_revision', step
    FROM (SELECT request_id, unnest(CAST(recipe -> '$.earlier' AS JSON[])) AS step FROM requests
          WHERE recipe IS NOT NULL)),
parts AS (
    SELECT request_id, 'control' AS part, unnest(CAST(recipe -> '$.controls' AS JSON[])) AS used
    FROM steps WHERE recipe IS NOT NULL
    UNION ALL
    SELECT request_id, 'adapter', unnest(CAST(recipe -> '$.adapters' AS JSON[]))
    FROM steps WHERE recipe IS NOT NULL)
SELECT DISTINCT * FROM (
    SELECT request_id, 'model' AS part, model, model_revision AS revision FROM steps
    UNION ALL
    SELECT request_id, part, used ->> '$.model', used ->> '$.model_revision' FROM parts
    UNION ALL
    SELECT request_id, 'tool', used ->> '$.tool', used ->> '$.tool_revision' FROM parts
    WHERE used ->> '$.tool' <> ''
    UNION ALL
    SELECT request_id, 'tool', recipe ->> '$.region.tool', recipe ->> '$.region.tool_revision'
    FROM steps WHERE recipe ->> '$.region.tool' <> '');

-- One row a picture that an adapter was trained on, with the rights it was trained under.
CREATE OR REPLACE VIEW training_images AS
SELECT * FROM raw.training_images
QUALIFY row_number() OVER (PARTITION BY adapter, revision, sha256 ORDER BY registered_at) = 1;

-- One row a fault of an item that a run went on without.
CREATE OR REPLACE VIEW refused_items AS SELECT * FROM raw.refused_items;

-- Scores that were measured again, as last measured: all detectors of a name are measured at once.
CREATE OR REPLACE VIEW raw.latest_rescores AS
SELECT * FROM raw.rescores
QUALIFY rank() OVER (PARTITION BY request_id, attempt, check_name, name
                     ORDER BY measured_at DESC) = 1;

-- One row a score, as last measured: `score` is what a policy's rule calls it, check_name.name.
CREATE OR REPLACE VIEW scores AS
SELECT s.request_id, s.check_name || '.' || s.name AS score, s.check_name, s.name, s.value,
       s.evidence, s.detector, s.revision
FROM (SELECT * FROM raw.scores
      ANTI JOIN raw.rescores USING (request_id, attempt, check_name, name)
      UNION ALL BY NAME
      SELECT * EXCLUDE (measured_at) FROM raw.latest_rescores) AS s
JOIN raw.current AS c ON c.request_id = s.request_id AND c.attempt = s.attempt;

-- One row a policy's word on one image, the original one and those of later replays.
CREATE OR REPLACE VIEW verdict_history AS
SELECT v.request_id, v.outcome, v.reasons, v.policy, v.policy_version, v.policy_digest,
       v.decided_at, v.replay_id
FROM (SELECT *, NULL::VARCHAR AS replay_id FROM raw.verdicts
      UNION ALL BY NAME SELECT * FROM raw.replayed_verdicts) AS v
JOIN raw.current AS c ON c.request_id = v.request_id AND c.attempt = v.attempt;

-- One row an image: the verdict that counts, the last one.
CREATE OR REPLACE VIEW verdicts AS
SELECT v.request_id, v.outcome, v.reasons, v.policy, v.policy_version, v.policy_digest,
       v.decided_at, v.replay_id
FROM (SELECT *, NULL::VARCHAR AS replay_id FROM raw.verdicts
      ANTI JOIN raw.replayed_verdicts USING (request_id, attempt)
      UNION ALL BY NAME
      SELECT * FROM (
          SELECT * FROM raw.replayed_verdicts
          QUALIFY row_number() OVER (PARTITION BY request_id, attempt
                                     ORDER BY decided_at DESC, replay_id) = 1)) AS v
JOIN raw.current AS c ON c.request_id = v.request_id AND c.attempt = v.attempt;

-- One row a policy that was applied to images made before.
CREATE OR REPLACE VIEW replays AS SELECT * FROM raw.replays;

-- Models, adapters and tools that a recipe names beside the request's own model, by attempt.
CREATE OR REPLACE VIEW raw.recipe_models AS
WITH steps AS (
    SELECT request_id, attempt, recipe AS step FROM raw.requests WHERE recipe IS NOT NULL
    UNION ALL
    SELECT request_id, attempt, unnest(CAST(recipe -> '$.earlier' AS JSON[]))
    FROM raw.requests WHERE (recipe -> '$.earlier') IS NOT NULL),
parts AS (
    SELECT request_id, attempt, 'control' AS part,
           unnest(CAST(step -> '$.controls' AS JSON[])) AS used FROM steps
    UNION ALL
    SELECT request_id, attempt, 'adapter', unnest(CAST(step -> '$.adapters' AS JSON[])) FROM steps)
SELECT DISTINCT * FROM (
    SELECT request_id, attempt, 'model' AS part, step ->> '$.model' AS model,
           step ->> '$.model_revision' AS revision
    FROM steps WHERE (step ->> '$.model') IS NOT NULL
    UNION ALL
    SELECT request_id, attempt, part, used ->> '$.model', used ->> '$.model_revision' FROM parts
    UNION ALL
    SELECT request_id, attempt, 'tool', used ->> '$.tool', used ->> '$.tool_revision' FROM parts
    WHERE used ->> '$.tool' <> ''
    UNION ALL
    SELECT request_id, attempt, 'tool', step ->> '$.region.tool', step ->> '$.region.tool_revision'
    FROM steps WHERE (step ->> '$.region.tool') <> '');

-- One row a person's decision; `counts` marks the last one on each image.
CREATE OR REPLACE VIEW reviews AS
SELECT r.review_id, r.request_id, r.decision, r.reviewer, r.roles, r.reason, r.decided_at,
       r.expires, r.rules, r.asset_sha256,
       row_number() OVER (PARTITION BY r.request_id
                          ORDER BY r.decided_at DESC, r.review_id) = 1 AS counts
FROM raw.reviews AS r;

-- One row a file; an approved image has two, the quarantined one and the signed one.
CREATE OR REPLACE VIEW assets AS
SELECT a.sha256, a.request_id, a.state, a.made_by, a.url, a.mime, a.width, a.height, a.size,
       a.pixels_sha256, a.perceptual_hash, a.recorded_at
FROM raw.assets AS a
JOIN raw.current AS c ON c.request_id = a.request_id AND c.attempt = a.attempt
QUALIFY row_number() OVER (PARTITION BY a.request_id, a.sha256 ORDER BY a.recorded_at) = 1;

-- One row a signed file: its C2PA manifest store, byte for byte.
CREATE OR REPLACE VIEW manifests AS
SELECT m.asset_sha256, m.request_id, m.label, m.certificate, m.manifest, m.recorded_at
FROM raw.manifests AS m
JOIN raw.current AS c ON c.request_id = m.request_id AND c.attempt = m.attempt
QUALIFY row_number() OVER (PARTITION BY m.request_id, m.asset_sha256 ORDER BY m.recorded_at) = 1;

-- The decision that counts on each image. An approval holds until it expires, and for the rules that
-- it was given for: a replay that holds an image back for another one asks a person again.
CREATE OR REPLACE VIEW raw.decisions AS
SELECT w.*, coalesce(w.decision = 'approve' AND coalesce(w.expires > now(), true)
                     AND CASE WHEN w.rules IS NULL THEN v.replay_id IS NULL
                              ELSE list_has_all(w.rules, list_transform(
                                  list_filter(v.reasons, lambda one: one.outcome = 'review'),
                                  lambda one: one.rule)) END, false) AS approval_holds
FROM (SELECT * FROM main.reviews WHERE counts) AS w
LEFT JOIN main.verdicts AS v ON v.request_id = w.request_id;

-- One row an image, wide: request, verdict, review and the file that counts (the signed one, if
-- any). This is what `export --where` selects from. `cleared`: passed or approved, signed, and not
-- rejected by a person.
CREATE OR REPLACE VIEW images AS
SELECT r.request_id, r.sku, r."index", r.campaign, r.client, r.mode, r.model, r.model_revision,
       r.model_licence, r.prompt, r.prompt_sha256, r.negative_prompt, r.seed, r.width, r.height,
       r.steps, r.guidance, r.scheduler, r.recipe, r.terms, r.terms_id, r.expires, r.state, r.error,
       r.run_id, r.recorded_at, v.outcome, v.policy, v.policy_version, v.policy_digest, v.reasons,
       w.decision, w.reviewer, w.reason AS review_reason, w.decided_at AS reviewed_at,
       w.expires AS approved_until,
       a.sha256, a.state AS asset_state, a.url, a.mime, a.size, a.pixels_sha256,
       a.perceptual_hash, m.label AS c2pa_label, m.certificate,
       w.approval_holds,
       coalesce(a.state = 'signed' AND w.decision IS DISTINCT FROM 'reject'
                AND (v.outcome = 'pass' OR (v.outcome = 'review' AND w.approval_holds)), false)
           AS cleared
FROM requests AS r
LEFT JOIN verdicts AS v ON v.request_id = r.request_id
LEFT JOIN raw.decisions AS w ON w.request_id = r.request_id
LEFT JOIN (
    SELECT * FROM assets
    QUALIFY row_number() OVER (PARTITION BY request_id
                               ORDER BY state = 'signed' DESC, recorded_at DESC, sha256) = 1
) AS a ON a.request_id = r.request_id
LEFT JOIN manifests AS m ON m.request_id = r.request_id AND m.asset_sha256 = a.sha256;

-- One row an image that a replay let pass and that lies unsigned in quarantine: `platemark release`
-- signs it. What a person rejected stays rejected.
CREATE OR REPLACE VIEW to_sign AS
SELECT request_id, sku, "index", campaign, client, policy, policy_version, policy_digest, sha256,
       url, recorded_at
FROM images WHERE outcome = 'pass' AND asset_state = 'quarantined'
              AND decision IS DISTINCT FROM 'reject';

-- One row a pack and file name that it was exported under, as last exported, with its terms. The
-- same images under the same terms are the same pack (`pack_id`), however often it is exported.
CREATE OR REPLACE VIEW packs AS
SELECT * FROM raw.packs
QUALIFY row_number() OVER (PARTITION BY pack_id, file ORDER BY created_at DESC) = 1;

-- One row a file in a pack.
CREATE OR REPLACE VIEW pack_assets AS SELECT DISTINCT * FROM raw.pack_assets;

-- One row an image that was asked for and left out of a pack, with the last reason and its time.
CREATE OR REPLACE VIEW pack_refusals AS
SELECT * FROM raw.pack_refusals
QUALIFY row_number() OVER (PARTITION BY pack_id, request_id ORDER BY created_at DESC) = 1;
