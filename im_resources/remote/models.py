"""Models in folders, for machines that have no such folder: uploaded once, fetched once a machine.

A profile may name a model by a folder (or GGUF file) of the machine that drives the study. It is
published at ``<files>/models/<fingerprint of its weights>``, and a node brings it into
``$IM_MODEL_CACHE``, where one process downloads and the others wait. Models of packages and of the
hub come by themselves. No result depends on a folder's name, and no fingerprint holds it.
"""

from collections.abc import Callable
from pathlib import Path

from im_resources.adapter_store import PICKLES
from im_resources.language_model.converted import model_cache, whole_hash
from im_resources.language_model.loading import ModelError, locate
from im_resources.language_model.side_by_side import stop_point
from im_resources.published import DamagedFolder
from im_resources.remote.folders import RemoteFolders
from im_resources.study import ModelSource, Study, resolve_path

ROLES = ("base", "embedding", "reward", "unieval")
MODEL = "model"  # the folder in ours: its own files would mix with the manifest


def share_models(study: Study, files: str) -> Study:
    """Publish the study's model folders at ``files``, a deployment's; the study that names them
    there, for `fetch_models`. What is there already is not uploaded again.

    Raises ModelError when a model is missing, RemoteError when it cannot be uploaded.
    """
    return _with(study, lambda source: _shared(source, files))


def fetch_models(study: Study) -> Study:
    """Bring the models of a study of `share_models` onto this machine; the study that names them
    here. Nothing is downloaded where they are there and intact.

    Raises ModelError when one is not there or damaged, RemoteError and DiskError when it cannot be
    fetched.
    """
    return _with(study, _fetched)


def _with(study: Study, change: Callable[[ModelSource], ModelSource]) -> Study:
    sources = {role: getattr(study.models, role) for role in ROLES}
    changed = {
        role: change(source)
        for role, source in sources.items()
        if source is not None and source.path is not None
    }
    copy = study.model_copy(update={"models": study.models.model_copy(update=changed)})
    copy.__dict__.pop("folder", None)  # which another machine may have computed
    return copy


def _shared(source: ModelSource, files: str) -> ModelSource:
    assert source.path is not None
    if "://" in source.path:
        return source
    folder, key = resolve_path(source.path), _key(source)
    single = folder.is_file()
    paths = [folder] if single else sorted(p for p in folder.rglob("*") if p.is_file())
    root = folder.parent if single else folder
    held = {
        f"{MODEL}/{path.relative_to(root).as_posix()}": path
        for path in paths
        if path.suffix not in PICKLES  # which are never loaded
    }
    manifest = {
        "fingerprint": key,
        "files": {name: whole_hash(path) for name, path in held.items()},
        "sizes": {name: path.stat().st_size for name, path in held.items()},
    }
    url = files if "://" in files else f"file://{files}"
    _remote(url).publish(key, held, manifest, replacing=True)
    name = f"/{folder.name}" if single else ""
    return source.model_copy(update={"path": f"{url}/models/{key}{name}"})


def _fetched(source: ModelSource) -> ModelSource:
    assert source.path is not None
    if "://" not in source.path:
        return source
    files, _, rest = source.path.rpartition("/models/")
    key, _, name = rest.partition("/")
    remote, target = _remote(files), model_cache() / f"shared-{key}"
    try:
        manifest = remote.fetch(key, target, stop_point, whole_hash)
    except DamagedFolder as error:
        raise ModelError(
            f"model file {error}; delete the folder {remote.place.of(key)} there, and start the "
            "study again where the model is"
        ) from error
    if manifest is None:
        raise ModelError(
            f"no model at {remote.place.of(key)}; start the study again where the model is"
        )
    found = source.model_copy(update={"path": str(target / MODEL / name)})
    if (here := _key(found)) != key:
        raise ModelError(
            f"the model at {remote.place.of(key)} is another one here ({here}): the versions of "
            "this project differ between the machines"
        )
    return found


def _key(source: ModelSource) -> str:
    """The fingerprint of a model's weights, of their content alone; a GGUF is not converted."""
    assert source.path is not None
    path = resolve_path(source.path)
    if path.suffix == ".gguf" and path.is_file():
        return f"gguf-{whole_hash(path)[:32]}"
    return locate(source)[2]


def _remote(files: str) -> RemoteFolders:
    return RemoteFolders.at(f"{files}/models", Path(model_cache(), ".known"))
