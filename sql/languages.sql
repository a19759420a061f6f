-- Examples of a pool by source and language, with how sure the detector was of them: $dataset names
-- its table.
SELECT source, language, count(*) AS examples, avg(language_confidence) AS confidence
FROM query_table($dataset)
GROUP BY source, language
ORDER BY source, examples DESC, language
