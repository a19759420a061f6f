"""The GPU resource of a cluster: models run on its nodes, and none is loaded here."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from im_resources.cluster.errand import Common
from im_resources.deployment.reading import DeploymentError
from im_resources.deployment.schema import Deployment, RayExecutor
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.workplace import Task, Workplace

if TYPE_CHECKING:
    import torch

    from im_resources.language_model.embedding import LoadedEmbedder
    from im_resources.language_model.loading import LoadedModel


_SHARED: dict[tuple[str, str], Study] = {}  # by a study's settings, and where the files are


class RayGpu(GpuResource):
    """Sends work to the nodes of a Ray cluster."""

    deployment: str = Field(description="The deployment, as JSON")

    @classmethod
    def of(cls, study: Study, deployment: Deployment) -> "RayGpu":
        """Of a study in a deployment. Raises DeploymentError where the study cannot run there."""
        executor = deployment.executor
        assert isinstance(executor, RayExecutor)
        if study.models.base is not None and study.models.precision == "auto":
            raise DeploymentError(
                "models.precision: auto takes what is faster on the machine at hand, and every "
                f"node of a cluster may find another; with the deployment {deployment.name} set "
                "fp32, bf16, int8 or nf4 in the profile"
            )
        return cls(device=executor.device, deployment=deployment.model_dump_json())

    @property
    def placed(self) -> Deployment:
        """The deployment."""
        return Deployment.model_validate_json(self.deployment)

    @property
    def executor(self) -> RayExecutor:
        """What the deployment says of the cluster."""
        found = self.placed.executor
        assert isinstance(found, RayExecutor)
        return found

    @property
    def loads(self) -> bool:
        """Whether models are loaded in this process: none is."""
        return False

    @property
    def workers(self) -> int:
        """How many adapters a group works on at once, where each has a worker of its own."""
        return max(1, int(self.executor.cpus)) if self.device == "cpu" else 1

    def torch_device(self) -> "torch.device":
        """The kind of device that the nodes have; this machine need not have one."""
        import torch

        return torch.device(self.device)

    def where(self) -> str:
        """Where the models run, in words."""
        return f"the Ray cluster at {self.executor.address} ({self.device})"

    def base_model(self, study: Study) -> "LoadedModel":
        """Raises RuntimeError: there is none here."""
        raise RuntimeError("models.base is loaded by the nodes of the cluster alone")

    def embedder(self, study: Study) -> "LoadedEmbedder":
        """Raises RuntimeError: there is none here."""
        raise RuntimeError("models.embedding is loaded by the nodes of the cluster alone")

    def _shared(self, study: Study) -> Study:
        """The study, whose model folders are where all nodes reach them."""
        from im_resources.remote.models import share_models

        files, content = self.placed.files, study.model_dump_json()
        if files is None:
            return study
        if (content, files) not in _SHARED:
            _SHARED[content, files] = share_models(study, files)
        return _SHARED[content, files]

    def run(
        self,
        task: Task,
        items: Mapping[str, Any],
        here: Workplace,
        weigh: Callable[[Any], int] | None = None,
        **common: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Do ``task`` for all items on the cluster, in groups; see ``GpuResource.run``.

        Raises:
            ClusterError: the cluster is not there, lacks the resources, or is another version.
            ItemsLost: at the end, when nodes failed some items as often as they are tried.
        """
        from im_resources.cluster.dispatch import Dispatch

        base = None if here.study.models.base is None else self.base_fingerprint(here.study)
        shared = Common.of(task, self._shared(here.study), self.placed, base, common)
        executor = self.executor
        weights = None if weigh is None else {key: weigh(item) for key, item in items.items()}
        yield from Dispatch(executor, shared, items, here.on_step).run(weights)
