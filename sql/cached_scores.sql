-- Scores of the examples in the table wanted, by the indicators' names and fingerprints in the table
-- indicators: the place of the one, the number of the other, and the value. $scores names the table that
-- has them: the cache, or the scores of a pool.
SELECT place, number, value
FROM query_table($scores)
JOIN indicators USING (indicator, fingerprint)
JOIN wanted USING (example_id)
