"""Which shape the rule may have: a line, or one that bends (see `comparing`)."""
