from tests.language_model.fixtures import tiny_folder

__all__ = ["tiny_folder"]
