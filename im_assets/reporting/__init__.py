"""The report of a study: one page, its figures, and every number on it as JSON."""
