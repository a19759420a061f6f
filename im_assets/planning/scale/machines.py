"""What does the computing: GPUs by their data sheets, and two CPU cores for the checks."""

from collections.abc import Mapping
from dataclasses import dataclass

from im_assets.planning.scale.coefficients import Coefficients
from im_assets.planning.scale.ranges import Range

CPU = "cpu"


@dataclass(frozen=True)
class Machine:
    """One piece of hardware.

    Attributes:
        memory: GiB that a process finds; of the CPU not told.
    """

    name: str
    memory: float

    def training(self, precision: str, known: Coefficients) -> Range | None:
        """Operations a second of a finetune; None where nobody has measured it."""
        return self._rate("training", precision, known)

    def forward(self, precision: str, known: Coefficients) -> Range | None:
        """Operations a second of evaluating and scoring."""
        return self._rate("forward", precision, known)

    def embedding(self, known: Coefficients) -> Range | None:
        """Operations a second of the sentence embeddings."""
        if self.name == CPU:
            return _tera(known["cpu_forward"])
        return _of_peak(known[f"peak_{self.name}"], known["share_embedding"])

    def _rate(self, what: str, precision: str, known: Coefficients) -> Range | None:
        if self.name == CPU:
            return _tera(known[f"cpu_{what}"])
        share = known.get(f"share_{what}_{precision}")  # of fp32 none was measured
        return _of_peak(known[f"peak_{self.name}"], share)


# nvidia-smi tells 81,559 MiB of an 80 GB card and 143,771 of an H200; a GiB is CUDA's own.
MACHINES: Mapping[str, Machine] = {
    "a100": Machine("a100", 78),
    "h100": Machine("h100", 78),
    "h200": Machine("h200", 139),
    CPU: Machine(CPU, 0),
}


def _tera(rate: Range | None) -> Range | None:
    return None if rate is None else rate * 1e12


def _of_peak(peak: Range | None, share: Range | None) -> Range | None:
    return None if peak is None or share is None else peak * share * 1e12
