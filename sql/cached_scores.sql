-- Cached scores of the examples in the table wanted, by the indicators' names and fingerprints in the
-- table indicators: the place of the one, the number of the other, and the value.
SELECT place, number, value
FROM score_cache
JOIN indicators USING (indicator, fingerprint)
JOIN wanted USING (example_id)
