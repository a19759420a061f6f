"""Each study has its own history: the environment in which Dagster works on one study.

Dagster keeps runs, events and what is materialized below ``$DAGSTER_STATE`` (``dagster.yaml``).
That is the folder ``dagster`` of the study (``dagster-<deployment>`` in another deployment than
this machine), so that one study's green partitions and plots never stand for another's.
``python -m im_resources.study.environment`` prints the variables for the study in ``IM_PROFILE`` as
lines for a shell, which ``eval "$(make -s env)"`` reads. Imports no Dagster.
"""

import json
import os
import shlex
import sys
from pathlib import Path

from im_resources.deployment.reading import (
    DEPLOYMENTS,
    DeploymentError,
    deployment_path,
    load_deployment,
)
from im_resources.study.fingerprints import fingerprint
from im_resources.study.places import (
    DEPLOYMENT,
    PROFILES,
    PROJECT_ROOT,
    THIS_MACHINE,
    ProfileError,
    state_home,
)
from im_resources.study.reading import load_study, profile_path
from im_resources.study.schema import Study

STATE = "DAGSTER_STATE"
# Where the history of all studies was before each had its own.
SHARED = "dagster"
MADE_BY = "profile.json"  # in the study's folder: which profile it was last run with


class HistoryError(RuntimeError):
    """Dagster would write into the history of another study; says whose, and what mends it."""


def check_history(study: Study) -> None:
    """Raises HistoryError when ``$DAGSTER_STATE`` is in ``$IM_HOME``, but not the study's own."""
    chosen = os.environ.get(STATE)
    found = Path(chosen).resolve() if chosen else study.history
    if found == study.history or not found.is_relative_to(state_home()):
        return
    within = found.relative_to(state_home()).parts
    whose = f"of the study {within[0]!r}" if len(within) > 1 else "of no one study"
    raise HistoryError(
        f"{STATE} is {found}, the history {whose}, but IM_PROFILE names the study {study.name!r}, "
        f"whose history is {study.history}. In a shell, with IM_PROFILE exported, this sets it: "
        f'eval "$(make -s env)"'
    )


def environment() -> tuple[Study, dict[str, str]]:
    """The study in ``IM_PROFILE``, and the variables under which Dagster works on it.

    Raises SystemExit with the message for a profile that is wrong: this is for commands.
    """
    profile = os.environ.get("IM_PROFILE") or "demo"
    try:
        study, path = load_study(profile), profile_path(profile).absolute()
        load_deployment()
        where = deployment_path(os.environ.get(DEPLOYMENT) or THIS_MACHINE)
    except (ProfileError, DeploymentError) as error:
        raise SystemExit(str(error)) from error
    # A process elsewhere has to find them too.
    profile = path.stem if path == PROFILES / f"{path.stem}.yaml" else str(path)
    deployment = where.stem if where == DEPLOYMENTS / f"{where.stem}.yaml" else str(where)
    return study, {
        "DAGSTER_HOME": os.environ.get("DAGSTER_HOME") or str(PROJECT_ROOT),
        "IM_HOME": str(state_home()),
        "IM_PROFILE": profile,
        DEPLOYMENT: deployment,
        STATE: str(study.history),
    }


def in_a_new_shell(command: str, profile: str | None = None) -> str:
    """The command as it is pasted into a new shell at the project's root, to work on this study.

    Args:
        profile: as in ``IM_PROFILE``; default: that of this process, once it has entered its study.
    """
    settings = {"IM_PROFILE": profile or os.environ.get("IM_PROFILE") or "demo"}
    if state_home() != PROJECT_ROOT / "var":
        settings["IM_HOME"] = str(state_home())
    if (deployment := os.environ.get(DEPLOYMENT) or THIS_MACHINE) != THIS_MACHINE:
        settings[DEPLOYMENT] = deployment
    # Before the command, where the shell quotes: make reads a dollar sign in what comes after it.
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in settings.items()), command])


def enter_study(make: bool = True) -> Study:
    """Make this process, and those that it starts, work on the study in ``IM_PROFILE``.

    Args:
        make: make the folder of its history, where there is none, and keep which profile it was.

    Whatever a shell has set, it is never another study's history that is written. Says so when
    there is a history from before each study had its own, and when another profile has made the
    study's results from other data.
    """
    study, variables = environment()
    os.environ |= variables
    for note in (earlier_history(study), other_data(study, variables["IM_PROFILE"])):
        if note:
            print(note, file=None if make else sys.stderr)
    if make:
        study.history.mkdir(parents=True, exist_ok=True)
        _remember(study, variables["IM_PROFILE"])
    return study


def other_data(study: Study, profile: str) -> str | None:
    """That results of another profile's data are replaced, since both name one study; else None."""
    try:
        before = json.loads((study.folder / MADE_BY).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing has run, or by a version that did not say
        return None
    if before["profile"] == profile or before["data"] == fingerprint(study.data):
        return None
    return (
        f"the study {study.name!r} in {study.folder} was made by the profile {before['profile']} "
        f"of other data, and the profile {profile} has the same `name`: what it makes takes the "
        f"place of those results. To keep both, give it a `name` of its own"
    )


def _remember(study: Study, profile: str) -> None:
    text = json.dumps({"profile": profile, "data": fingerprint(study.data)})
    new = study.folder / f".{MADE_BY}.{os.getpid()}"
    new.write_text(text, encoding="utf-8")
    new.replace(study.folder / MADE_BY)


def earlier_history(study: Study) -> str | None:
    """What to do with a history from before each study had its own; None when there is none."""
    old = state_home() / SHARED
    if not (old / "history").is_dir():
        return None
    keep = (
        f"move it in the place of {study.history}"
        if study.history.exists()
        else f"mv {shlex.quote(str(old))} {shlex.quote(str(study.history))}"
    )
    return f"{old} is a history of all studies, which nothing reads any more; to keep it: {keep}"


def main() -> None:
    """Print ``export NAME=value`` for the study in ``IM_PROFILE``."""
    for name, value in environment()[1].items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
