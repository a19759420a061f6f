"""The profile, the data that it names, and its models."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from im_assets.candidates.files import SourceError, source_files
from im_assets.doctor.findings import Finding
from im_resources.study import (
    DataSource,
    ModelSource,
    ProfileError,
    Study,
    load_study,
    resolve_path,
)

NETWORK = "is downloaded at first use; see that this machine may, or download it before"


def profile(name: str) -> tuple[Study | None, Finding]:
    """The study that a profile describes, if it can be read."""
    try:
        study = load_study(name)
    except ProfileError as error:
        return None, Finding(
            "error", "profile", str(error), "mend the profile; docs/settings.md has every setting"
        )
    except OSError as error:
        return None, Finding(
            "error", "profile", f"{name}: {error.strerror}", "IM_PROFILE names it: see its rights"
        )
    yet = "" if study.folder.exists() else ", which is made when it first runs"
    return study, Finding("ok", "profile", f"{name}: study {study.name!r}, in {study.folder}{yet}")


def data(study: Study) -> Iterator[Finding]:
    """Whether the files of every source are there and can be read."""
    sources = {f"candidates.{name}": source for name, source in study.data.candidates.items()}
    sources |= {f"unseen.{name}": source for name, source in study.data.unseen.items()}
    sources |= study.data.measured
    found = {f"data.{name}": source for name, source in sources.items()}
    if study.runs is not None:
        found["runs.path"] = DataSource(path=study.runs.path)
    faults = [finding for setting, s in found.items() for finding in _source(setting, s)]
    yield from faults
    if not faults:
        yield Finding("ok", "data", f"the files of {len(found)} sources are there")


def _source(setting: str, source: DataSource) -> Iterator[Finding]:
    remedy = "put the file there, or mend its path"
    if source.path is None:
        yield Finding("note", "data", f"{setting}: {source.hub} {NETWORK}")
    try:
        for path in source_files(source):
            if fault := unreadable(path):
                yield Finding("error", "data", f"{setting}: {fault}", remedy)
    except ProfileError as error:
        yield Finding("error", "data", f"{setting}: {error}", "export it")
    except SourceError as error:
        yield Finding("error", "data", f"{setting}: {error}", remedy)


def unreadable(path: Path) -> str | None:
    """Why a file cannot be read; None when it can."""
    try:
        with path.open("rb") as file:
            return None if file.read(1) else f"{path} is empty"
    except FileNotFoundError:
        return f"there is no file {path}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def models(study: Study) -> Iterator[Finding]:
    """Whether each model is there, and the converted one made; nothing is loaded or converted."""
    for name in ("base", "embedding", "reward", "unieval"):
        source: ModelSource | None = getattr(study.models, name)
        if source is not None:
            yield model(f"models.{name}", source)


def model(setting: str, source: ModelSource) -> Finding:
    """Whether a model is there, and the converted one made; "ok" where it can be loaded at once."""
    if source.hub is not None:
        return _hub(setting, source.hub, source.revision)
    if source.path is not None:
        try:
            place = resolve_path(source.path)
        except ProfileError as error:
            return Finding("error", "models", f"{setting}: {error}", "export it")
    else:
        assert source.package is not None
        assert source.file is not None
        try:
            spec = importlib.util.find_spec(source.package)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            return Finding(
                "error", "models", f"{setting}: no package {source.package!r}", "make install"
            )
        place = Path(spec.submodule_search_locations[0]) / source.file
    if not place.exists():
        return Finding("error", "models", f"{setting}: nothing at {place}", "put the model there")
    if place.suffix == ".gguf":
        return _converted(setting, place)
    if place.is_dir() and not any(place.rglob("*.safetensors")):
        remedy = "convert the weights to safetensors; pickled ones are never loaded"
        return Finding("error", "models", f"{setting}: no safetensors in {place}", remedy)
    return Finding("ok", "models", f"{setting}: {place}")


def _converted(setting: str, gguf: Path) -> Finding:
    """The safetensors made of a GGUF file; torch is imported for the place of the cache."""
    from im_resources.language_model.converted import conversion_fault, converted_folder

    folder = converted_folder(gguf)
    if not folder.is_dir():
        return Finding("note", "models", f"{setting}: {gguf.name} is converted on first use (20 s)")
    if fault := conversion_fault(folder, contents=True):
        remedy = "nothing: it is made again on first use (20 s)"
        return Finding("note", "models", f"{setting}: {fault}", remedy)
    return Finding("ok", "models", f"{setting}: {gguf.name}, converted in {folder}")


def _hub(setting: str, hub: str, revision: str | None) -> Finding:
    from huggingface_hub import try_to_load_from_cache

    at = f"{hub} at {revision}" if revision else hub
    if isinstance(try_to_load_from_cache(hub, "config.json", revision=revision), str):
        return Finding("ok", "models", f"{setting}: {at}, in the local cache")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        remedy = "unset HF_HUB_OFFLINE for the download"
        what = f"{setting}: {at} is not in the local cache, and HF_HUB_OFFLINE is set"
        return Finding("error", "models", what, remedy)
    return Finding("note", "models", f"{setting}: {at} {NETWORK}")
