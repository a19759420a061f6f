-- What was cut of each example, by what it depends on: $fingerprint.
SELECT * FROM cut_cache WHERE fingerprint = $fingerprint
