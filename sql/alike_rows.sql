-- The texts of the rows in the table alike (number, group), from a pool's shards ($files): group after
-- group, each in the order of the rows.
SELECT alike.number, "group", instruction, input, output, turns
FROM read_parquet($files) AS rows
JOIN alike ON alike.number = rows.number
ORDER BY "group", alike.number
