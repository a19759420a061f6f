-- One row a candidate source: the examples kept, those in some mixture, and their mean share of one.
WITH kept AS (
    SELECT source, count(*) AS kept FROM candidate_datasets GROUP BY source
),
drawn AS (
    SELECT
        source,
        count(DISTINCT example_id) AS drawn,
        count(*) / sum(count(*)) OVER () AS share
    FROM query_table($members)
    GROUP BY source
)
SELECT source, kept, coalesce(drawn, 0) AS drawn, coalesce(share, 0.0) AS share
FROM kept
LEFT JOIN drawn USING (source)
ORDER BY source
