"""``python -m im_resources.language_model.prepare``: convert a profile's model ahead of use."""

from im_resources.language_model.loading import locate
from im_resources.study import load_study


def main() -> None:
    """Locate (and, for a GGUF file, dequantize) the models of the profile in ``IM_PROFILE``."""
    models = load_study().models
    for name, source in (("base", models.base), ("embedding", models.embedding)):
        if source is not None:
            print(f"{name} model: {locate(source)[0]}")


if __name__ == "__main__":
    main()
