-- The share of images that passed, by client and campaign, and what came of the reviewed ones
-- $limit = 1000: at most so many
SELECT client, campaign, count(*) AS images,
       count(*) FILTER (outcome = 'pass') AS passed,
       count(*) FILTER (outcome = 'review') AS review,
       count(*) FILTER (outcome = 'review' AND decision = 'approve') AS approved,
       count(*) FILTER (outcome = 'review' AND decision = 'reject') AS rejected,
       count(*) FILTER (outcome = 'block') AS blocked,
       count(*) FILTER (state = 'failed') AS failed,
       round(count(*) FILTER (outcome = 'pass') / nullif(count(outcome), 0), 4) AS pass_rate,
       count(*) FILTER (cleared) AS cleared
FROM raw.counted
GROUP BY client, campaign ORDER BY client, campaign LIMIT $limit
