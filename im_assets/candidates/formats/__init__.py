"""The data formats, one module a kind. The registry imports every module in this folder."""
