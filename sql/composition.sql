-- What the examples of an unseen pool are: $dataset names its table.
SELECT example_id, source, category, language, length(output) AS length
FROM query_table($dataset)
