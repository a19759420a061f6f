-- Of each row in the table pool (number, example_id, source), in the order of the rows, the first version
-- that holds it, from the table history.
SELECT since_version
FROM pool
JOIN history USING (example_id, source)
WHERE until_version IS NULL
ORDER BY number
