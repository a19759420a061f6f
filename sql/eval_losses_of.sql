-- Evaluation losses measured before under one fingerprint.
SELECT eval_id, output_index, nll, tokens, loss, fingerprint
FROM eval_loss_cache
WHERE fingerprint = $fingerprint
ORDER BY eval_id, output_index
