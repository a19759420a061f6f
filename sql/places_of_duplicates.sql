-- Of each row in the table duplicates (number, said, other), in the order of the rows: the places of
-- the rows with the numbers said and other, from a pool's shards ($files), into the Parquet file $path.
-- Own ids of the rows in the table hidden are left out.
COPY (
    WITH places AS (
        SELECT number, source, file, line,
               CASE WHEN number IN (SELECT number FROM hidden) THEN NULL ELSE own_id END AS own_id
        FROM read_parquet($files)
        WHERE number IN (SELECT said FROM duplicates UNION SELECT other FROM duplicates)
    )
    SELECT duplicates.*, said.source, said.file, said.line, said.own_id,
           other.source AS other_source, other.file AS other_file, other.line AS other_line,
           other.own_id AS other_own_id
    FROM duplicates
    JOIN places AS said ON said.number = duplicates.said
    JOIN places AS other ON other.number = duplicates.other
    ORDER BY duplicates.number
) TO $path (FORMAT parquet)
