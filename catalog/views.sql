-- The views that people read (schema main), over the tables of schema.sql.

-- Attempts that do not count: where a request was made, all but its first finished attempt, else all
-- but the last. Upkeep has settled most; those since are compared here, however many they are. As a
-- list, so that few are expected: else all images would be kept in memory, and looked up for these.
CREATE OR REPLACE VIEW raw.superseded_since AS
WITH fresh AS (
    SELECT request_key FROM raw.images
    SEMI JOIN (SELECT attempt FROM raw.batches ANTI JOIN raw.settled USING (attempt))
    USING (attempt)),
tried AS (
    SELECT request_id, request_key, attempt, state
    FROM raw.images SEMI JOIN fresh USING (request_key))
SELECT unnest(list(struct_pack(t.request_id, t.request_key, t.attempt)), recursive := true)
FROM tried AS t
JOIN (SELECT request_id, coalesce(min(attempt) FILTER (state = 'done'), max(attempt)) AS attempt
      FROM tried GROUP BY request_id) AS c USING (request_id)
WHERE t.attempt <> c.attempt;

CREATE OR REPLACE VIEW raw.superseded AS
FROM raw.superseded_attempts UNION FROM raw.superseded_since;

-- One row a request that a replay judged again: the last verdict, on the attempt that counts. What
-- is last is told by the time, then by a hash, as one number: to compare texts takes twice as long.
CREATE OR REPLACE VIEW raw.latest_replayed AS
SELECT left(request_id, 32)::UUID AS request_key, request_id, attempt,
       max(replayed) AS replayed, arg_max_null(outcome, replayed) AS outcome,
       arg_max_null(policy, replayed) AS policy,
       arg_max_null(policy_version, replayed) AS policy_version,
       arg_max_null(policy_digest, replayed) AS policy_digest,
       arg_max_null(reasons, replayed) AS reasons, max(decided_at) AS verdict_at,
       arg_max_null(replay_id, replayed) AS replay_id
FROM (SELECT *, (epoch_us(decided_at)::HUGEINT << 64) + hash(replay_id) AS replayed
      FROM raw.replayed_verdicts ANTI JOIN raw.superseded USING (request_id, attempt))
GROUP BY request_id, attempt;

-- One row a request of which something was said after its attempt was recorded: attempts that do not
-- count, new terms, a replay's verdict, a person's decision, a file made later, an erasure. Few
-- requests have any, and the images' rows are joined with nothing else. An approval holds until it
-- expires, and for the rules that it was given for: a replay that holds an image back for another one
-- asks again. That of an attempt that does not count is void; a rejection stays one.
CREATE OR REPLACE VIEW raw.since AS
SELECT *, decision = 'approve' AND coalesce(approved_until > now(), true)
          AND (NOT replayed OR coalesce(list_has_all(rules, asked), false)) AS approval_holds
FROM (
    SELECT request_key, any_value(request_id) AS request_id,
           list(superseded) FILTER (superseded IS NOT NULL) AS superseded,
           bool_or(erased) AS erased, bool_or(renewed IS NOT NULL) AS renewed,
           arg_max_null(terms, renewed) AS terms, arg_max_null(terms_id, renewed) AS terms_id,
           arg_max_null(expires, renewed) AS expires,
           bool_or(replayed IS NOT NULL) AS replayed,
           arg_max_null(outcome, replayed) AS outcome, arg_max_null(policy, replayed) AS policy,
           arg_max_null(policy_version, replayed) AS policy_version,
           arg_max_null(policy_digest, replayed) AS policy_digest,
           arg_max_null(reasons, replayed) AS reasons, arg_max_null(asked, replayed) AS asked,
           arg_max_null(judged, replayed) AS judged,
           arg_max_null(verdict_at, replayed) AS verdict_at,
           arg_max_null(replay_id, replayed) AS replay_id,
           arg_max_null(decision, reviewed) AS decision,
           arg_max_null(reviewer, reviewed) AS reviewer,
           arg_max_null(review_reason, reviewed) AS review_reason,
           arg_max_null(reviewed_at, reviewed) AS reviewed_at,
           arg_max_null(approved_until, reviewed) AS approved_until,
           arg_max_null(rules, reviewed) AS rules,
           bool_or(remade IS NOT NULL) AS remade, arg_max_null(sha256, remade) AS sha256,
           arg_max_null(asset_state, remade) AS asset_state, arg_max_null(url, remade) AS url,
           arg_max_null(mime, remade) AS mime, arg_max_null(size, remade) AS size,
           arg_max_null(pixels_sha256, remade) AS pixels_sha256,
           arg_max_null(perceptual_hash, remade) AS perceptual_hash,
           arg_max_null(c2pa_label, remade) AS c2pa_label,
           arg_max_null(certificate, remade) AS certificate
    FROM (
        SELECT request_key, request_id, attempt AS superseded FROM raw.superseded
        UNION ALL BY NAME
        -- Statistics tell which files have none; as a list for the reason above.
        SELECT one.request_key, one.request_id, true AS erased
        FROM (SELECT unnest(list(struct_pack(request_key, request_id))) AS one
              FROM raw.images WHERE prompt IS NULL)
        UNION ALL BY NAME
        SELECT left(request_id, 32)::UUID AS request_key, request_id, recorded_at AS renewed,
               terms, terms_id, expires
        FROM raw.terms
        UNION ALL BY NAME
        SELECT * EXCLUDE (attempt)
        FROM (
            SELECT left(request_id, 32)::UUID AS request_key, request_id, attempt,
                   attempt AS judged,
                   (epoch_us(decided_at)::HUGEINT << 64) + hash(replay_id) AS replayed, outcome,
                   policy, policy_version, policy_digest, reasons,
                   list_transform(list_filter(reasons, lambda one: one.outcome = 'review'),
                                  lambda one: one.rule) AS asked,
                   decided_at AS verdict_at, replay_id
            FROM raw.replayed_verdicts
            UNION ALL BY NAME
            SELECT left(request_id, 32)::UUID AS request_key, request_id,
                   CASE WHEN decision = 'approve' THEN attempt END AS attempt,
                   (epoch_us(decided_at)::HUGEINT << 64) + hash(review_id) AS reviewed, decision,
                   reviewer, reason AS review_reason, decided_at AS reviewed_at,
                   expires AS approved_until, rules
            FROM raw.reviews
            UNION ALL BY NAME
            SELECT left(request_id, 32)::UUID AS request_key, request_id, attempt,
                   ((state = 'signed')::HUGEINT << 120)
                       + (epoch_us(recorded_at)::HUGEINT << 64) + hash(sha256) AS remade, sha256,
                   state AS asset_state, url, mime, size, pixels_sha256, perceptual_hash,
                   c2pa_label, certificate
            FROM raw.later_files) ANTI JOIN raw.superseded USING (request_key, attempt))
    GROUP BY request_key);

-- One row a request, wide: the attempt that counts, with what was said since in place of what was
-- recorded at first. The other views are parts of it. Lists find their rows here and read what is
-- wide of those rows only, from raw.images: so `replayed_…` and `remade_…`. `cleared`: passed or
-- approved, signed, not rejected by a person, and its prompt not erased.
CREATE OR REPLACE VIEW raw.counted AS
SELECT *, coalesce(asset_state = 'signed' AND decision IS DISTINCT FROM 'reject'
                   AND erased IS NULL
                   AND (outcome = 'pass' OR (outcome = 'review' AND approval_holds)), false)
              AS cleared
FROM (
    SELECT r.* EXCLUDE (terms, terms_id, expires, outcome, policy, policy_version, policy_digest,
                        reasons, sha256, asset_state, url, mime, size, pixels_sha256,
                        perceptual_hash, c2pa_label, certificate, urgency, duplicate_distance,
                        nearest_pdq, nearest_clip, nearest_descriptor),
           CASE WHEN s.renewed THEN s.terms ELSE r.terms END AS terms,
           CASE WHEN s.renewed THEN s.terms_id ELSE r.terms_id END AS terms_id,
           CASE WHEN s.renewed THEN s.expires ELSE r.expires END AS expires,
           coalesce(s.outcome, r.outcome) AS outcome, coalesce(s.policy, r.policy) AS policy,
           coalesce(s.policy_version, r.policy_version) AS policy_version,
           coalesce(s.policy_digest, r.policy_digest) AS policy_digest,
           CASE WHEN s.replayed THEN s.reasons ELSE r.reasons END AS reasons,
           coalesce(s.verdict_at, r.recorded_at) AS verdict_at, s.replay_id,
           s.decision, s.reviewer, s.review_reason, s.reviewed_at, s.approved_until,
           s.approval_holds, s.erased, s.replayed, s.reasons AS replayed_reasons, s.remade,
           s.sha256 AS remade_sha256, s.url AS remade_url,
           coalesce(s.sha256, r.sha256) AS sha256,
           coalesce(s.asset_state, r.asset_state) AS asset_state,
           CASE WHEN s.remade THEN s.url ELSE r.url END AS url, coalesce(s.mime, r.mime) AS mime,
           coalesce(s.size, r.size) AS size,
           coalesce(s.pixels_sha256, r.pixels_sha256) AS pixels_sha256,
           coalesce(s.perceptual_hash, r.perceptual_hash) AS perceptual_hash,
           CASE WHEN s.remade THEN s.c2pa_label ELSE r.c2pa_label END AS c2pa_label,
           CASE WHEN s.remade THEN s.certificate ELSE r.certificate END AS certificate
    FROM raw.images AS r LEFT JOIN raw.since AS s ON s.request_key = r.request_key
    WHERE s.superseded IS NULL OR NOT list_contains(s.superseded, r.attempt));

CREATE OR REPLACE VIEW raw.current AS SELECT request_id, attempt FROM raw.counted;

CREATE OR REPLACE VIEW raw.latest_rescored AS
SELECT request_id, left(request_id, 32)::UUID AS request_key, attempt,
       arg_max_null(signature, measured_at) AS signature,
       arg_max_null("values", measured_at) AS "values",
       arg_max_null(evidence, measured_at) AS evidence,
       arg_max_null(duplicate_distance, measured_at) AS duplicate_distance,
       arg_max_null(nearest_pdq, measured_at) AS nearest_pdq,
       arg_max_null(nearest_clip, measured_at) AS nearest_clip,
       arg_max_null(nearest_descriptor, measured_at) AS nearest_descriptor
FROM raw.rescored GROUP BY request_id, attempt;

-- One row a model and revision, as last registered.
CREATE OR REPLACE VIEW models AS
SELECT * FROM raw.models
QUALIFY row_number() OVER (PARTITION BY name, revision ORDER BY registered_at DESC) = 1;

-- Licences by name and revision, to be looked up: a join would be made for those who do not ask.
CREATE OR REPLACE VIEW raw.model_licences AS
SELECT map_from_entries(list((concat(name, chr(31), revision), licence))) AS licences FROM models;

-- One row a policy digest, with the policy's full text.
CREATE OR REPLACE VIEW policies AS
SELECT * FROM raw.policies
QUALIFY row_number() OVER (PARTITION BY digest ORDER BY registered_at) = 1;

-- The works that images are compared with, and what each counts as today (UTC): with the last day
-- of an own work's leave it becomes protected, with that of a protection a work no longer counts.
CREATE OR REPLACE VIEW "references" AS
SELECT * EXCLUDE (salt), CASE WHEN expires IS NULL OR expires >= current_date THEN role
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
SELECT tried.request_id, tried.attempt, s.attempt IS NULL AS counts,
       tried.run_id, tried.batch_id, tried.state, tried.error, tried.recorded_at, tried.sku
FROM raw.images AS tried LEFT JOIN raw.superseded AS s
     ON s.request_key = tried.request_key AND s.attempt = tried.attempt;

-- One row a request: what was asked for, its terms, and whether it was made.
CREATE OR REPLACE VIEW requests AS
SELECT request_id, sku, "index", campaign, client, mode, model, model_revision,
       (SELECT licences FROM raw.model_licences)[concat(model, chr(31), model_revision)]
           AS model_licence,
       prompt, prompt_sha256, negative_prompt, seed, width, height, steps, guidance, scheduler,
       recipe, terms, terms_id, expires, state, error, run_id, batch_id, attempt, recorded_at,
       milliseconds, generate_ms
FROM raw.counted;

-- One row a picture that an image was made from: `step` counts a chain's steps from 0, `source` is
-- file, asset (an image of this catalog, request source_request_id) or step (an earlier step).
CREATE OR REPLACE VIEW inputs AS
SELECT i.* EXCLUDE (attempt, salt)
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
SELECT * EXCLUDE (salt) FROM raw.training_images
QUALIFY row_number() OVER (PARTITION BY adapter, revision, sha256 ORDER BY registered_at) = 1;

-- One row an input picture that says under which licence it is (its XMP), and whom to credit.
CREATE OR REPLACE VIEW input_licences AS
SELECT * FROM raw.input_licences
QUALIFY row_number() OVER (PARTITION BY sha256 ORDER BY registered_at DESC) = 1;

-- One row a fault of an item that a run went on without.
CREATE OR REPLACE VIEW refused_items AS SELECT * EXCLUDE (salt) FROM raw.refused_items;

-- One row a score of a signature: its place in the lists of an image. `signal`: it is one of those of
-- which raw.ranked has the nearest.
CREATE OR REPLACE VIEW raw.score_places AS
SELECT signature, score.check_name, score.name, score.detector, score.revision, place,
       CASE WHEN score.check_name = 'similarity' AND score.name = 'nearest' THEN 'clip'
            WHEN score.check_name = 'copying'
                 AND split_part(score.name, '@', 1) IN ('pdq', 'clip', 'descriptor')
            THEN split_part(score.name, '@', 1) END AS signal
FROM (SELECT signature, unnest(scores) AS score, generate_subscripts(scores, 1) AS place
      FROM (SELECT DISTINCT * FROM raw.signatures));

-- Attempts whose scores in raw.images do not count: they do not count, or were measured again.
CREATE OR REPLACE VIEW raw.outdated AS
SELECT request_key, attempt FROM raw.superseded
UNION ALL SELECT left(request_id, 32)::UUID, attempt FROM raw.rescored;

-- What audits rank by (catalog/ranks.py), of images that were measured later than by the run, and of
-- those that a version before 5 recorded, in whose lists of scores it is. Statistics tell which files
-- have such rows.
CREATE OR REPLACE VIEW raw.ranked_otherwise AS
SELECT request_key, attempt, again,
       coalesce(duplicate_distance,
                if("values"[exact] = 1, 0, coalesce(nullif("values"[near], 'nan'::DOUBLE), 256)))
           AS duplicate_distance,
       coalesce(nearest_pdq,
                list_min(list_filter(list_transform(pdq, lambda one: "values"[one]),
                                     lambda one: NOT isnan(one))), 256) AS nearest_pdq,
       coalesce(nearest_clip,
                list_max(list_filter(list_transform(clip, lambda one: "values"[one]),
                                     lambda one: NOT isnan(one))), -1) AS nearest_clip,
       coalesce(nearest_descriptor,
                list_max(list_filter(list_transform(descriptor, lambda one: "values"[one]),
                                     lambda one: NOT isnan(one))), -1) AS nearest_descriptor
FROM (
    FROM (SELECT request_key, attempt, true AS again, signature, "values", duplicate_distance,
                 nearest_pdq, nearest_clip, nearest_descriptor
          FROM raw.latest_rescored
          UNION ALL
          SELECT request_key, attempt, false, signature, "values", NULL, NULL, NULL, NULL
          FROM raw.images ANTI JOIN raw.rescored USING (request_id, attempt)
          WHERE duplicate_distance IS NULL)
    ANTI JOIN raw.superseded USING (request_key, attempt))
LEFT JOIN (
    SELECT signature, max(place) FILTER (check_name = 'duplicates' AND name = 'exact') AS exact,
           max(place) FILTER (check_name = 'duplicates' AND name = 'near') AS near,
           list(place) FILTER (signal = 'pdq') AS pdq,
           list(place) FILTER (signal = 'clip') AS clip,
           list(place) FILTER (signal = 'descriptor') AS descriptor
    FROM raw.score_places GROUP BY signature) USING (signature);

-- One row an image, with what audits rank by as last measured; `again`: later than by the run.
CREATE OR REPLACE VIEW raw.ranked AS
SELECT request_key, attempt, false AS again, duplicate_distance, nearest_pdq, nearest_clip,
       nearest_descriptor
FROM raw.images ANTI JOIN raw.outdated USING (request_key, attempt)
WHERE duplicate_distance IS NOT NULL
UNION ALL FROM raw.ranked_otherwise;

-- One row an image that waits for a person's decision, lapsed approvals too, with the verdict that
-- asks; `urgency` is the greatest severity of its reasons, 1 (low) to 4. Rows of versions before 5
-- have it in their reasons only.
CREATE OR REPLACE VIEW raw.waiting AS
SELECT coalesce(a.request_key, s.request_key) AS request_key,
       if(s.replayed, s.judged, a.attempt) AS attempt,
       coalesce(if(s.replayed, NULL, a.urgency),
                list_max(list_transform(
                    if(s.replayed, s.reasons, a.reasons),
                    lambda one: list_position(['low', 'normal', 'high', 'critical'],
                                              one.severity))), 2) AS urgency,
       coalesce(s.replayed, false) AS replayed, s.reasons AS replayed_reasons,
       if(s.replayed, s.policy, a.policy) AS policy,
       if(s.replayed, s.policy_version, a.policy_version) AS policy_version,
       s.reviewer, s.approved_until, s.remade, s.sha256 AS remade_sha256, s.url AS remade_url
FROM (
    FROM (SELECT request_key, attempt, urgency, policy, policy_version
          FROM raw.images WHERE outcome = 'review' AND urgency IS NOT NULL
          UNION ALL BY NAME
          SELECT request_key, attempt, reasons, policy, policy_version
          FROM raw.images WHERE outcome = 'review' AND urgency IS NULL)
    ANTI JOIN raw.superseded USING (request_key, attempt)) AS a
FULL JOIN raw.since AS s ON s.request_key = a.request_key
WHERE if(s.replayed, s.outcome = 'review', a.request_key IS NOT NULL)
  AND (s.decision IS NULL OR (s.decision = 'approve' AND NOT s.approval_holds));

-- One row a score, as last measured: `score` is what a policy's rule calls it, check_name.name.
CREATE OR REPLACE VIEW scores AS
SELECT s.request_id, n.check_name || '.' || n.name AS score, n.check_name, n.name,
       s."values"[n.place] AS value, s.evidence[n.place] AS evidence, n.detector, n.revision
FROM (SELECT r.request_id, coalesce(a.signature, r.signature) AS signature,
             coalesce(a."values", r."values") AS "values",
             coalesce(a.evidence, r.evidence) AS evidence
      FROM raw.counted AS r LEFT JOIN raw.latest_rescored AS a
           ON a.request_key = r.request_key AND a.attempt = r.attempt) AS s
JOIN raw.score_places AS n USING (signature);

-- One row a policy's word on one image, the original one and those of later replays.
CREATE OR REPLACE VIEW verdict_history AS
SELECT request_id, outcome, reasons, policy, policy_version, policy_digest,
       recorded_at AS decided_at, NULL::VARCHAR AS replay_id
FROM raw.images ANTI JOIN raw.superseded USING (request_key, attempt) WHERE outcome IS NOT NULL
UNION ALL
SELECT v.request_id, v.outcome, v.reasons, v.policy, v.policy_version, v.policy_digest,
       v.decided_at, v.replay_id
FROM raw.replayed_verdicts AS v ANTI JOIN raw.superseded USING (request_id, attempt);

-- One row an image: the verdict that counts, the last one. In two halves, so that what is asked of
-- verdicts is asked of the images' columns as they are stored.
CREATE OR REPLACE VIEW verdicts AS
SELECT request_id, outcome, reasons, policy, policy_version, policy_digest,
       recorded_at AS decided_at, NULL::VARCHAR AS replay_id
FROM raw.images ANTI JOIN raw.latest_replayed USING (request_key)
     ANTI JOIN raw.superseded USING (request_key, attempt)
WHERE outcome IS NOT NULL
UNION ALL
SELECT request_id, outcome, reasons, policy, policy_version, policy_digest, verdict_at, replay_id
FROM raw.latest_replayed;

-- One row a policy that was applied to images made before.
CREATE OR REPLACE VIEW replays AS SELECT * FROM raw.replays;

-- Models, adapters and tools that a recipe names beside the request's own model, by attempt.
CREATE OR REPLACE VIEW raw.recipe_models AS
WITH steps AS (
    SELECT request_id, attempt, recipe AS step FROM raw.images WHERE recipe IS NOT NULL
    UNION ALL
    SELECT request_id, attempt, unnest(CAST(recipe -> '$.earlier' AS JSON[]))
    FROM raw.images WHERE (recipe -> '$.earlier') IS NOT NULL),
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

-- One row a person's decision; `counts` marks the last one on each image that is not void (raw.since).
CREATE OR REPLACE VIEW reviews AS
SELECT r.review_id, r.request_id, r.decision, r.reviewer, r.roles, r.reason, r.decided_at,
       r.expires, r.rules, r.asset_sha256,
       coalesce((epoch_us(r.decided_at)::HUGEINT << 64) + hash(r.review_id) = l.reviewed, false)
           AS counts
FROM raw.reviews AS r LEFT JOIN (
    SELECT w.request_id,
           max((epoch_us(w.decided_at)::HUGEINT << 64) + hash(w.review_id)) AS reviewed
    FROM raw.reviews AS w ANTI JOIN raw.superseded AS s ON s.request_id = w.request_id
         AND s.attempt = CASE WHEN w.decision = 'approve' THEN w.attempt END
    GROUP BY w.request_id) AS l USING (request_id);

-- One row a file; an approved image has two, the quarantined one and the signed one.
CREATE OR REPLACE VIEW assets AS
SELECT sha256, request_id, asset_state AS state, 'run' AS made_by, url, mime, made_width AS width,
       made_height AS height, size, pixels_sha256, perceptual_hash, recorded_at
FROM raw.images ANTI JOIN raw.superseded USING (request_key, attempt) WHERE sha256 IS NOT NULL
UNION ALL
SELECT a.sha256, a.request_id, a.state, a.made_by, a.url, a.mime, a.width, a.height, a.size,
       a.pixels_sha256, a.perceptual_hash, a.recorded_at
FROM (FROM raw.later_files
      QUALIFY row_number() OVER (PARTITION BY request_id, sha256 ORDER BY recorded_at) = 1) AS a
ANTI JOIN raw.superseded USING (request_id, attempt);

-- One row a signed file: its C2PA manifest store, byte for byte.
CREATE OR REPLACE VIEW manifests AS
SELECT m.asset_sha256, m.request_id, m.label, m.certificate, m.manifest, m.recorded_at
FROM raw.manifests AS m ANTI JOIN raw.superseded USING (request_id, attempt)
QUALIFY row_number() OVER (PARTITION BY m.request_id, m.asset_sha256 ORDER BY m.recorded_at) = 1;

-- One row an image, wide: request, verdict, review and the file that counts (the signed one, if
-- any). This is what `export --where` selects from.
CREATE OR REPLACE VIEW images AS
SELECT request_id, sku, "index", campaign, client, mode, model, model_revision,
       (SELECT licences FROM raw.model_licences)[concat(model, chr(31), model_revision)]
           AS model_licence,
       prompt, prompt_sha256, negative_prompt, seed, width, height, steps, guidance, scheduler,
       recipe, terms, terms_id, expires, state, error, run_id, recorded_at, generate_ms, outcome,
       policy, policy_version, policy_digest, reasons, decision, reviewer, review_reason,
       reviewed_at, approved_until, sha256, asset_state, url, mime, size, pixels_sha256,
       perceptual_hash, c2pa_label, certificate, approval_holds, cleared
FROM raw.counted;

-- One row an image that a replay let pass and that lies unsigned in quarantine: `platemark release`
-- signs it. What a person rejected stays rejected, what was erased is not signed.
CREATE OR REPLACE VIEW to_sign AS
SELECT request_id, sku, "index", campaign, client, policy, policy_version, policy_digest, sha256,
       url, recorded_at
FROM images WHERE outcome = 'pass' AND asset_state = 'quarantined'
              AND decision IS DISTINCT FROM 'reject' AND prompt IS NOT NULL;

-- One row a pack and file name that it was exported under, as last exported, with its terms. The
-- same images under the same terms are the same pack (`pack_id`), however often it is exported.
CREATE OR REPLACE VIEW packs AS
SELECT * EXCLUDE (salt) FROM raw.packs
QUALIFY row_number() OVER (PARTITION BY pack_id, file ORDER BY created_at DESC) = 1;

-- One row a file in a pack.
CREATE OR REPLACE VIEW pack_assets AS SELECT * FROM raw.pack_assets;

-- One row an image that was asked for and left out of a pack, with the last reason and its time.
CREATE OR REPLACE VIEW pack_refusals AS
SELECT * EXCLUDE (salt) FROM raw.pack_refusals
QUALIFY row_number() OVER (PARTITION BY pack_id, request_id ORDER BY created_at DESC) = 1;

-- One row a file that was made for a channel from a signed asset (`original_sha256`), with its own
-- C2PA manifest store; `recipe` says how.
CREATE OR REPLACE VIEW renditions AS
SELECT * EXCLUDE (salt) FROM raw.renditions
QUALIFY row_number() OVER (PARTITION BY sha256 ORDER BY made_at) = 1;

-- One row a pack or asset that was taken back, with the reason. `kind` is pack or asset; an asset's
-- revocation holds for all files of its request, a pack's for the files in it.
CREATE OR REPLACE VIEW revocations AS
SELECT * EXCLUDE (salt) FROM raw.revocations
QUALIFY row_number() OVER (PARTITION BY kind, pack_id, request_id ORDER BY revoked_at) = 1;

-- One row a verification that was recorded: what a verifier said of a file, by its SHA-256.
CREATE OR REPLACE VIEW verifications AS SELECT * FROM raw.verifications;

-- One row a signed file that still lacks the time stamp it should have: `platemark stamp`.
CREATE OR REPLACE VIEW stamps_owed AS
SELECT asset_sha256, min(owed_since) AS owed_since
FROM raw.stamps_owed ANTI JOIN raw.stamps USING (asset_sha256) GROUP BY asset_sha256;

-- One row a time stamp given later: the stamped file is another asset of the same image.
CREATE OR REPLACE VIEW stamps AS
SELECT * FROM raw.stamps
QUALIFY row_number() OVER (PARTITION BY asset_sha256 ORDER BY stamped_at) = 1;

-- One row a signed file that `platemark recover` can find: its watermark's payload, the PDQ hashes of
-- the whole picture and of its middle four fifths, its ISCC. All stand in its manifest too.
CREATE OR REPLACE VIEW fingerprints AS SELECT * FROM raw.fingerprints;
