"""The base model: loading, prompts, batching, LoRA training and losses."""
