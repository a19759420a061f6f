-- Rows in quarantine by table, source and reason, as the reader or the cleaning gave it.
SELECT dataset, source, reason, count(*) AS examples
FROM quarantined_examples
GROUP BY dataset, source, reason
ORDER BY dataset, source, reason
