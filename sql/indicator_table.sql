-- One row a mixture and indicator, long form: the mean over the mixture's members of an example's
-- score, or the mixture's own value (KNN-i), with the mixture's size and evaluation loss.
-- Both weightings of the loss are computed; $weighting says which is regressed.
WITH member_means AS (
    SELECT m.seed, s.indicator, avg(s.value) AS value, count(*) AS scored
    FROM mixed_samples AS m
    JOIN example_scores AS s USING (example_id)
    GROUP BY m.seed, s.indicator
),
sizes AS (
    SELECT seed, count(*) AS n_examples FROM mixed_samples GROUP BY seed
),
indicators AS (
    SELECT seed, indicator, value, scored FROM member_means
    UNION ALL BY NAME
    SELECT seed, indicator, value, n_examples AS scored FROM mixture_scores JOIN sizes USING (seed)
),
output_losses AS (
    SELECT seed, eval_id, sum(nll) AS nll, sum(tokens) AS tokens, avg(loss) AS instruction_loss
    FROM eval_losses
    GROUP BY seed, eval_id
),
losses AS (
    SELECT
        seed,
        sum(nll) / sum(tokens) AS token_loss,
        avg(instruction_loss) AS instruction_loss
    FROM output_losses
    GROUP BY seed
)
SELECT
    seed,
    n_examples,
    indicator,
    value,
    scored,
    token_loss,
    instruction_loss,
    CASE WHEN $weighting = 'token' THEN token_loss ELSE instruction_loss END AS loss,
    ln(CASE WHEN $weighting = 'token' THEN token_loss ELSE instruction_loss END) AS log_loss
FROM losses
JOIN sizes USING (seed)
JOIN indicators USING (seed)
ORDER BY seed, indicator
