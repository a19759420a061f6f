-- The table history of a pool's versions (without rows where there was no pool), once the pool holds
-- the rows of the table pool (number, example_id, source): those of before in their order, and then
-- what was added. A version more, unless nothing was added or has gone.
WITH before AS MATERIALIZED (
    SELECT row_number() OVER () AS place, example_id, source, since_version, until_version
    FROM history
), held AS MATERIALIZED (
    SELECT place, example_id, source FROM before WHERE until_version IS NULL
), gone AS MATERIALIZED (
    SELECT place FROM held ANTI JOIN pool USING (example_id, source)
), added AS MATERIALIZED (
    SELECT number, example_id, source FROM pool ANTI JOIN held USING (example_id, source)
), next AS MATERIALIZED (
    SELECT coalesce(greatest(max(since_version), max(until_version)), 0) + 1 AS version FROM before
), rows AS (
    SELECT false AS added, place, example_id, source, since_version,
           CASE WHEN place IN (SELECT place FROM gone) THEN (SELECT version FROM next)
                ELSE until_version END AS until_version
    FROM before
    UNION ALL
    SELECT true, number, example_id, source, (SELECT version FROM next), NULL
    FROM added
)
SELECT example_id, source, since_version::BIGINT AS since_version,
       until_version::BIGINT AS until_version
FROM rows
ORDER BY added, place
