"""Charts as Vega-Lite specifications: one a figure, drawn for Dagster's metadata and the report.

A builder (``points``, ``rows``, ``densities``) returns a chart as plain data, with the numbers that
are drawn as named data sets; ``drawing`` makes a PNG or an SVG of it.
"""
