-- Embeddings by one model ($fingerprint) of the examples in the table wanted, each with its place there.
SELECT place, embedding
FROM embedding_cache
JOIN wanted USING (example_id)
WHERE fingerprint = $fingerprint
