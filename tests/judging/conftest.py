from tests.language_model.fixtures import smol_model, tiny_folder, tiny_model, tokenizer

__all__ = ["smol_model", "tiny_folder", "tiny_model", "tokenizer"]
