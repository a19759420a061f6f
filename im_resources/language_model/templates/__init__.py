"""The prompt templates. The registry imports every module in this folder."""
