"""The GPU resource: where models run, in which precision, within which memory; owns what is loaded.

A model is loaded once in a process and shared by every asset and every seed of the run. Without a
GPU the same code runs on the CPU.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from im_resources.study import ModelSource, Study, fingerprint
from im_resources.workplace import Task, Workplace

if TYPE_CHECKING:
    import torch

    from im_resources.language_model.embedding import LoadedEmbedder
    from im_resources.language_model.loading import LoadedModel

_LOADED: dict[str, Any] = {}
_LOCK = threading.Lock()
_CORES: list[int] = []  # how many this process was given, where it was


class GpuResource(dg.ConfigurableResource["GpuResource"]):
    """Device and loaded models of a run."""

    device: str = Field(
        default="auto", description="auto (cuda when there is one), cpu, cuda, cuda:1, …"
    )
    memory_fraction: float = Field(
        default=0.95, gt=0, le=1, description="Share of the GPU's memory that this process may take"
    )

    side_by_side: int = Field(
        default=0,
        ge=0,
        description="Adapters worked on at once; 0: for finetuning as many as are fastest, which "
        "is measured, else one per CPU core, or 1 on a GPU",
    )

    def run(
        self,
        task: Task,
        items: Mapping[str, Any],
        here: Workplace,
        weigh: Callable[[Any], int] | None = None,
        **common: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Do ``task`` for all items; yield (key, result) as they finish (see ``workplace``).

        Args:
            here: where to do it, if it is done in this process.
            weigh: how many examples an item has, of one that is cut by examples where work is sent
                to other machines.
            common: given to the task as it is, the same for all items.
        """
        yield from task(items, here, **common)

    @property
    def loads(self) -> bool:
        """Whether models are loaded in this process."""
        return True

    def where(self) -> str:
        """Where the models run, in words."""
        import platform

        import torch

        device = self.torch_device()
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        return f"{platform.machine()} CPU of {platform.node()}, {self.workers} cores"

    @property
    def workers(self) -> int:
        """How many adapters are worked on at once, where each has a worker of its own."""
        if self.side_by_side:
            return self.side_by_side
        return usable_cores() if self.torch_device().type == "cpu" else 1

    def torch_device(self) -> "torch.device":
        """The device in use. Raises RuntimeError when a CUDA device is asked for and absent."""
        import torch

        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(name)
        if device.type == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError(
                    f"device {self.device!r} was asked for, but torch {torch.__version__} sees no "
                    "CUDA GPU; set the GPU resource's device to auto or cpu"
                )
            if device.index is None:  # which the limit has to be told
                device = torch.device("cuda", torch.cuda.current_device())
            torch.cuda.set_per_process_memory_fraction(self.memory_fraction, device)
        return device

    def base_model(self, study: Study) -> "LoadedModel":
        """The study's base model, frozen, loaded on first use."""
        from im_resources.language_model.loading import load_base

        models, device = study.models, self.torch_device()
        return self._once(
            fingerprint("base", models.base, models.precision, str(device)),
            lambda: load_base(models.needed("base"), models.precision, device),
        )

    def tokenizer(self, study: Study) -> Any:
        """The base model's tokenizer, loaded on first use without the model."""
        from im_resources.language_model.loading import load_tokenizer

        source = study.models.needed("base")
        return self.owned("tokenizer", source, lambda: load_tokenizer(source))

    def base_fingerprint(self, study: Study) -> str:
        """The base model's fingerprint, without loading it."""
        from im_resources.language_model.loading import base_fingerprint

        device = self.torch_device()
        base = study.models.needed("base")
        return base_fingerprint(base, study.models.precision, device)

    def base_weights(self, study: Study) -> str:
        """The fingerprint of the base model's weights, whatever precision they are used in."""
        from im_resources.language_model.loading import locate

        return locate(study.models.needed("base"))[2]

    def embedder(self, study: Study) -> "LoadedEmbedder":
        """The study's sentence-embedding model, loaded on first use."""
        from im_resources.language_model.embedding import load_embedder

        source = study.models.needed("embedding")
        return self.owned("embedding", source, lambda: load_embedder(source, self.torch_device()))

    def owned(self, kind: str, source: ModelSource, load: Callable[[], Any]) -> Any:
        """Any other model of the study: loaded by ``load`` on first use, then kept."""
        return self._once(fingerprint(kind, source, str(self.torch_device())), load)

    def _once(self, key: str, load: Callable[[], Any]) -> Any:
        with _LOCK:
            if key not in _LOADED:
                _LOADED[key] = load()
            return _LOADED[key]


def restrict_cores(number: int) -> None:
    """This process uses so many cores and no more: the others are of its neighbours."""
    _CORES[:] = [number]


def usable_cores() -> int:
    """How many CPU cores this process may use; on macOS, which has no affinity, all there are."""
    if _CORES:
        return _CORES[0]
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
