-- Size of the evaluation set.
SELECT count(DISTINCT eval_id) AS instructions, count(*) AS outputs FROM eval_set
