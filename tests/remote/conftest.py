from tests.language_model.fixtures import tiny_folder
from tests.remote.fixtures import flaky, url

__all__ = ["flaky", "tiny_folder", "url"]
