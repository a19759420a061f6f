from tests.remote.fixtures import flaky

__all__ = ["flaky"]
