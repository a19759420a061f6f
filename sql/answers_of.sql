-- Answers generated before under one fingerprint.
SELECT eval_id, answer, tokens, complete, fingerprint
FROM answer_cache
WHERE fingerprint = $fingerprint
ORDER BY eval_id
