"""The base model: loading, prompts, batching, LoRA training and losses."""

import warnings

# peft 0.21 asks transformers 5 under the old name of a property, once an adapter.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
