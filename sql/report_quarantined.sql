-- Rows in quarantine by table, source and kind of reason, as the reader or the cleaning gave it. Rows
-- that were put there before kinds were recorded have none.
SELECT
    dataset,
    source,
    coalesce(kind, 'not recorded: materialize ' || dataset || ' again') AS kind,
    count(*) AS examples
FROM quarantined_examples
GROUP BY ALL
ORDER BY ALL
