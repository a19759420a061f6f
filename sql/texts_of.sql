-- The texts of the pool whose table $pool names, with their ids; turns where it has some.
SELECT COLUMNS(lambda name: name IN ('example_id', 'instruction', 'input', 'output', 'turns'))
FROM query_table($pool)
