-- What was cut of each of the examples in the table wanted, by what it depends on: $fingerprint.
SELECT place, cut_cache.* EXCLUDE (example_id, fingerprint)
FROM cut_cache
JOIN wanted USING (example_id)
WHERE fingerprint = $fingerprint
