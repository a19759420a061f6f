"""What does the computing: GPUs by their data sheets, and two CPU cores for the checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from im_assets.planning.scale.coefficients import Coefficients
from im_assets.planning.scale.ranges import Range, product

CPU = "cpu"
Pass = Literal["training", "forward"]
SMALL = 3e9  # weights below which no rate on a GPU was measured
SEVEN = 6.7e9  # weights of the model whose rates were measured
TERA = 1e12


@dataclass(frozen=True)
class Machine:
    """One piece of hardware.

    Attributes:
        memory: GiB that a process finds; of the CPU not told.
    """

    name: str
    memory: float

    def rate(self, what: Pass, weights: float, precision: str, known: Coefficients) -> Range | None:
        """Operations a second; None where nobody has measured it.

        Args:
            what: a training, or a forward pass alone, as evaluating and scoring are.
            weights: of the model: a small one keeps a GPU badly busy.
        """
        if self.name == CPU:
            return product(known[f"cpu_{what}"], TERA)
        share = known.get(f"share_{what}_{precision}")  # of fp32 none was measured
        small = known["share_small"]
        if share is not None and weights < SMALL:
            # Smaller products of fewer layers take no longer than those of a 7B.
            share = (
                None
                if small is None
                else Range(max(small.low, share.low * weights / SEVEN), small.high)
            )
        return product(known[f"peak_{self.name}"], share, TERA)

    def embedding(self, known: Coefficients) -> Range | None:
        """Operations a second of the sentence embeddings."""
        if self.name == CPU:
            return product(known["cpu_forward"], TERA)
        return product(known[f"peak_{self.name}"], known["share_embedding"], TERA)


# nvidia-smi tells 81,559 MiB of an 80 GB card and 143,771 of an H200; a GiB is CUDA's own.
MACHINES: Mapping[str, Machine] = {
    "a100": Machine("a100", 78),
    "h100": Machine("h100", 78),
    "h200": Machine("h200", 139),
    CPU: Machine(CPU, 0),
}
