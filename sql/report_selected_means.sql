-- Mean of each indicator over the selection and over the whole pool, with the pool's spread.
SELECT
    indicator,
    avg(value) AS pool,
    stddev_samp(value) AS pool_sd,
    avg(value) FILTER (WHERE example_id IN (SELECT example_id FROM dolly_selection)) AS selected
FROM dolly_scores
GROUP BY indicator
ORDER BY indicator
