-- Mean of each indicator over a selection and over its whole pool, with the pool's spread. $scores and
-- $selection name the pool's tables.
SELECT
    indicator,
    avg(value) AS pool,
    stddev_samp(value) AS pool_sd,
    avg(value) FILTER (
        WHERE example_id IN (SELECT example_id FROM query_table($selection))
    ) AS selected
FROM query_table($scores)
GROUP BY indicator
ORDER BY indicator
