"""The sections of the report, one module each: tables in, blocks out."""
