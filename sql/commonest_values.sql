-- The value that most examples have of each indicator in the table $scores, the least of those that
-- are as common, and their share.
WITH counted AS (
    SELECT indicator, value, count(*) AS examples FROM query_table($scores) GROUP BY ALL
)
SELECT
    indicator,
    arg_max(value, (examples, -value)) AS value,
    max(examples) / sum(examples) AS share
FROM counted
GROUP BY indicator
ORDER BY indicator
