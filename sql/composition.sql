-- What the examples of an unseen pool are, and whether they are among the table selected: $dataset names
-- its table.
SELECT COLUMNS(lambda name: name IN ('source', 'category', 'language')), length(output) AS length,
       example_id IN (SELECT example_id FROM selected) AS is_selected
FROM query_table($dataset)
