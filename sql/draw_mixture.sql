-- The examples of each source in the table candidates that rank first by SHA-256 of $seed and their id,
-- in that order, $most of each: the hash that digest() gives (im_assets/common/digests.py).
SELECT source, arg_min(example_id, sha256($seed || ':' || example_id), $most)
FROM candidates
GROUP BY source
