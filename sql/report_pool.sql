-- Size of an unseen pool: $dataset names its table.
SELECT count(*) AS examples FROM query_table($dataset)
