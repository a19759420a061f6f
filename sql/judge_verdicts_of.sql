-- Verdicts given before under any of the given keys (judge, prompt, and the texts in their order).
SELECT key, verdict
FROM judge_cache
WHERE list_contains($keys, key)
