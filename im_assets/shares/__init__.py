"""What share of each source: the value of each, and a mixture that is proposed."""
