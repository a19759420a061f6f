-- Mean of every indicator over the members of each set, of any experiment: $samples and $scores name
-- its tables, $transform the scale on which the mean is taken (im_assets/rule/transform.py). A set is known by its fingerprint, so that one drawn under two keys is counted once.
-- Scores of several versions of an indicator stay apart, and how many members have one is told.
-- Added up in the set's order: a sum in the order of the threads differs in its last digit from run
-- to run, and so would the rule and its fingerprint.
WITH members AS (
    SELECT DISTINCT set_id, position, example_id FROM query_table($samples)
)
SELECT
    set_id,
    indicator,
    fingerprint,
    avg(
        CASE $transform WHEN 'log' THEN sign(value) * ln(1 + abs(value)) ELSE value END
        ORDER BY position
    ) AS value,
    count(*) AS scored
FROM members
JOIN query_table($scores) USING (example_id)
GROUP BY set_id, indicator, fingerprint
ORDER BY set_id, indicator, fingerprint
