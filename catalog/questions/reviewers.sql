-- How each reviewer decides: how much, how fast, and how often others or later policies disagree
-- $days = 365: how many days back
-- $limit = 1000: at most so many
WITH decided AS (
    SELECT * FROM reviews WHERE decided_at >= now() - to_days($days::INTEGER)),
asked AS (
    SELECT request_key, recorded_at AS asked_at
    FROM raw.images ANTI JOIN raw.superseded USING (request_key, attempt)
    WHERE outcome = 'review'
    UNION ALL
    SELECT left(request_id, 32)::UUID, decided_at
    FROM raw.replayed_verdicts ANTI JOIN raw.superseded USING (request_id, attempt)
    WHERE outcome = 'review'),
waited AS (
    SELECT w.review_id, max(a.asked_at) AS asked_at
    FROM (SELECT *, left(request_id, 32)::UUID AS request_key FROM decided) AS w
    JOIN asked AS a USING (request_key)
    WHERE a.asked_at <= w.decided_at
    GROUP BY w.review_id),
today AS (SELECT request_id, outcome, replay_id FROM raw.since WHERE replayed),
last_word AS (SELECT request_id, decision, reviewer FROM reviews WHERE counts)
SELECT w.reviewer, count(*) AS decisions,
       count(*) FILTER (w.decision = 'approve') AS approved,
       count(*) FILTER (w.decision = 'reject') AS rejected,
       round(count(*) FILTER (w.decision = 'approve') / count(*), 4) AS approval_rate,
       count(*) FILTER (l.decision <> w.decision AND l.reviewer <> w.reviewer)
           AS reversed_by_others,
       count(*) FILTER (l.decision <> w.decision AND l.reviewer = w.reviewer) AS reversed_by_self,
       count(*) FILTER (w.counts AND t.replay_id IS NOT NULL
                        AND ((w.decision = 'approve' AND t.outcome = 'block')
                             OR (w.decision = 'reject' AND t.outcome = 'pass')))
           AS reversed_by_replay,
       round(median(epoch(w.decided_at - a.asked_at)) / 3600, 2) AS median_hours_to_decision,
       min(w.decided_at) AS first_at, max(w.decided_at) AS last_at
FROM decided AS w
LEFT JOIN waited AS a USING (review_id)
LEFT JOIN today AS t ON t.request_id = w.request_id
LEFT JOIN last_word AS l ON l.request_id = w.request_id
GROUP BY w.reviewer ORDER BY decisions DESC, w.reviewer LIMIT $limit
