-- Cached scores under any of the given backend fingerprints.
SELECT example_id, indicator, backend, fingerprint, value
FROM score_cache
WHERE list_contains($fingerprints, fingerprint)
