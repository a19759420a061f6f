"""Indicators: cheap numbers computed from an example's text (paper, table of indicators)."""
