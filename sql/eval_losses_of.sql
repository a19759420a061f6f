-- Evaluation losses measured before under these fingerprints.
SELECT eval_id, output_index, nll, tokens, loss, fingerprint
FROM eval_loss_cache
WHERE fingerprint IN (SELECT unnest($fingerprints))
ORDER BY fingerprint, eval_id, output_index
