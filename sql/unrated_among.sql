-- How many of the examples in the table wanted count with a number that the profile gives ($fingerprint:
-- of the judge, its prompt and that number) instead of a rating.
SELECT count(*) AS examples
FROM unrated_examples
SEMI JOIN wanted USING (example_id)
WHERE fingerprint = $fingerprint
