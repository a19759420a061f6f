"""Whether the rule can be believed: resampling, shuffling, leaving out, and other studies."""
