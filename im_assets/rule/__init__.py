"""The quality rule: stepwise least squares of log evaluation loss on the indicators of mixtures."""
