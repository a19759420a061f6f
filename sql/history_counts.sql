-- The newest version of the pool whose versions are in the table history, and how many rows were added
-- and withdrawn by it.
WITH last AS (SELECT greatest(max(since_version), max(until_version)) AS version FROM history)
SELECT any_value(version) AS version,
       count(*) FILTER (since_version = version) AS added,
       count(*) FILTER (until_version = version) AS withdrawn
FROM history, last
