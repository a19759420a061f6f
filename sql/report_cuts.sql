-- What was cut to fit into models.max_length: a row an asset, partition and source.
SELECT * FROM token_cuts ORDER BY asset, partition, source
