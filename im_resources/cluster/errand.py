"""A group of items as it is sent to a node, with all that the node has to know."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from im_resources.deployment.schema import Deployment
from im_resources.plugins import plugin_files
from im_resources.study import Study
from im_resources.workplace import Task


@dataclass(frozen=True)
class Common:
    """What is the same for all groups of a run.

    Attributes:
        study, deployment: as JSON: a node reads and checks them anew, and its paths are its own.
        base: the base model's fingerprint where work is sent from; None: the study has none.
        options: of the task.
        plugins: the files of the study's plugins that lie beside its profile.
    """

    task: Task
    study: str
    deployment: str
    base: str | None
    options: Mapping[str, Any]
    plugins: Mapping[str, bytes]

    @classmethod
    def of(
        cls,
        task: Task,
        study: Study,
        deployment: Deployment,
        base: str | None,
        options: Mapping[str, Any],
    ) -> "Common":
        content, place = study.model_dump_json(), deployment.model_dump_json()
        return cls(task, content, place, base, options, plugin_files(study))


@dataclass(frozen=True)
class Errand:
    """One group: ``name`` and ``attempt`` say which, in what it tells."""

    name: str
    attempt: int
    items: Mapping[str, Any]


def dumped(value: Any, otherwise: Callable[[Exception], Any] | None = None) -> bytes:
    """A value as bytes. ``otherwise``: gives what is sent in place of one that cannot travel."""
    try:
        content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        if otherwise is not None:
            pickle.loads(content)  # exceptions of odd signatures can be written and not read
        return content
    except Exception as error:
        if otherwise is None:
            raise
        return pickle.dumps(otherwise(error))
