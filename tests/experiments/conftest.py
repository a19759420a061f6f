from tests.language_model.fixtures import (
    smol_model,
    smol_plain,
    tiny_folder,
    tiny_model,
    tiny_plain,
    tokenizer,
)

__all__ = ["smol_model", "smol_plain", "tiny_folder", "tiny_model", "tiny_plain", "tokenizer"]
