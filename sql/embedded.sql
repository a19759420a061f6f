-- Places of those examples in the table wanted whose embedding by one model ($fingerprint) is cached.
SELECT place
FROM embedding_cache
JOIN wanted USING (example_id)
WHERE fingerprint = $fingerprint
