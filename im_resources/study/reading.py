"""Reading a profile: one YAML file becomes one validated, immutable Study, or a clear error.

The profile is chosen by the environment variable ``IM_PROFILE``: the name of a file in
``profiles/``, with .yaml or without, or a path to one (default: ``demo``). A profile may start from
another one: ``extends: demo``, and only what differs.
"""

import difflib
import os
import reprlib
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from im_resources.study.places import PROFILES, PROJECT_ROOT, ProfileError
from im_resources.study.schema import Study
from im_resources.study.yaml_text import read_yaml

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 300


def load_study(profile: str | None = None) -> Study:
    """Read and check a profile.

    Args:
        profile: as `profile_path` takes it; default: ``$IM_PROFILE``, else ``demo``.

    Raises:
        ProfileError: no such profile, not YAML, or a field is wrong; says which and what would do.
    """
    profile = profile or os.environ.get("IM_PROFILE") or "demo"
    path = profile_path(profile)
    content, files = _read_profile(path, ())
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{path}:\n" + "\n".join(_explain(error))) from error
    study._profile_folders = tuple(dict.fromkeys(file.resolve().parent for file in files))
    return study


def _read_profile(
    path: Path, extended_by: tuple[Path, ...]
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The settings in a file, laid over those of the profile that it `extends`; the files read.

    A block keeps the keys that the extending profile does not give; a key given replaces the whole
    value, so that `data: {candidates: …}` never mixes two lists of sources.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ProfileError(f"{path}: expected settings as `key: value`, found {_short(content)}")
    if "extends" not in content:
        return content, (path,)
    chain = (*extended_by, path)
    base_path = profile_path(str(content.pop("extends")), path.parent)
    if base_path in chain:
        raise ProfileError(f"{path}: `extends` goes round in a circle: {base_path}")
    base, files = _read_profile(base_path, chain)
    for key, value in content.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            base[key] = {**old, **value}
        else:
            base[key] = value
    return base, (path, *files)


def profile_path(profile: str, folder: Path | None = None) -> Path:
    """The file of a profile.

    Args:
        profile: the name of one in ``profiles/``; or a file, with .yaml: looked for in ``folder``,
            from the project's root, and in ``profiles/``, in this order.
        folder: default: where this process is.

    Raises ProfileError when there is none; names the known profiles.
    """
    known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
    if profile in known:
        return PROFILES / f"{profile}.yaml"
    wanted = Path(profile)
    file = wanted if wanted.suffix in (".yaml", ".yml") else Path(f"{profile}.yaml")
    what = f"unknown profile {profile!r}"
    if file is wanted or wanted.parent != Path():  # a name alone is no file that happens to be here
        for place in (folder or Path(), PROJECT_ROOT, PROFILES):
            if (place / file).is_file():  # a folder or a pipe is none
                return place / file
        if wanted.exists():
            raise ProfileError(f"not a file: {profile!r}; a profile is one, and ends with .yaml")
        what = f"no profile file: {profile!r} (nor in {PROJECT_ROOT}, nor in {PROFILES})"
    raise ProfileError(
        f"{what}{did_you_mean(wanted.stem, known)}; known profiles: {', '.join(known)} (or give "
        "the path of a .yaml file)"
    )


def _explain(error: ValidationError) -> list[str]:
    """One line per fault: field, value, what is wrong, and the key that was probably meant."""
    faults: dict[str, list[str]] = {}  # the members of a union complain one by one
    found: dict[str, str] = {}
    for fault in error.errors():
        field = ".".join(map(str, _field_of(fault["loc"]))) or "profile"
        messages = faults.setdefault(field, [])
        if fault["type"] == "extra_forbidden":
            key, known = str(fault["loc"][-1]), _keys_at(fault["loc"][:-1])
            hint = did_you_mean(key, known) or f"; known: {', '.join(known)}"
            messages.append(f"unknown setting{hint}")
        elif fault["type"] == "missing":
            messages.append("missing, this setting has no default")
        else:
            messages.append(fault["msg"].removeprefix("Value error, "))
            if fault["loc"]:  # else the input is the whole profile
                found[field] = f" (found {_short(fault['input'])})"
    return [
        f"  {field}: {', or '.join(dict.fromkeys(messages))}{found.get(field, '')}"
        for field, messages in faults.items()
    ]


def _short(value: Any) -> str:
    """A value as it is shown in a message: of any size and depth, in a line."""
    return _SHORT.repr(value)


def _field_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The location without what pydantic appends for the members of a union."""
    kind: Any = Study
    for depth, part in enumerate(location):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = _present(field.annotation) if field else None
        elif isinstance(part, str) and kind is not None:
            return location[:depth]
    return location


def _present(kind: Any) -> Any:
    """The type itself where None is allowed beside it."""
    kinds = [arg for arg in get_args(kind) if arg is not type(None)]
    return kinds[0] if type(None) in get_args(kind) and len(kinds) == 1 else kind


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The setting names that the block at ``location`` of a profile accepts."""
    kind: Any = Study
    for part in location:
        if get_origin(kind) is dict:  # the part is a name of the user's own, such as a source's
            kind = get_args(kind)[1]
        else:
            kind = _present(kind.model_fields[str(part)].annotation)
    return sorted(kind.model_fields)


def did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
