"""How sets are drawn, finetuned on and measured."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from im_resources.study.schema.base import (
    Name,
    Positive,
    SampleSeed,
    Settings,
    Shares,
    Take,
)


class MixtureSettings(Settings):
    """How many mixtures are drawn, how, and how large they are (paper: 78 random ones of 2000)."""

    ADDED: ClassVar[Mapping[str, Any]] = {
        "shares": "uniform",
        "kind": "random",
        "tilt": None,
        "strength": 1.5,
    }

    kind: Literal["random", "tilted", "designed"] = Field(
        "random",
        description="How a mixture's examples are drawn from its sources. random: all equally "
        "likely (paper), so that mixtures stay near the pool's mean; tilted: leaning to a random "
        "direction of the indicators, as selections do; designed: those tilted ones of "
        "`candidate_seeds` that tell most together (D-optimal). Both need `scoring.score: all`",
    )
    tilt: tuple[Name, ...] | None = Field(
        None,
        min_length=1,
        description="Indicators that tilted mixtures lean on; default: all that an example has. "
        "Others, or more, are other mixtures: name them where indicators may be added later",
    )
    strength: Annotated[float, Field(gt=0, le=5)] = Field(
        1.5,
        description="How far tilted mixtures lean: an example one standard deviation further in "
        "their direction is exp(strength) times as likely. Of designed ones the most",
    )
    seeds: int | tuple[int, ...] = Field(
        78,
        description="How many mixtures, with seeds from 0, or a list of distinct seed numbers "
        "(at least 4; paper: 78); each is one finetune and one row of the regression",
    )
    candidate_seeds: Annotated[int, Field(ge=10, le=100_000)] = Field(
        500,
        description="Seeds that seed_design, and designed mixtures, look at for the most "
        "informative mixtures, by their expected indicators; none is finetuned on",
    )
    size: Positive = Field(2000, description="Examples in a mixture (paper: 2000)")
    shares: Shares = Field(
        "uniform",
        description="How a mixture's shares of the sources are drawn. uniform: the paper's, "
        "r / Σr of uniform r; dirichlet: Dirichlet(1), all shares equally likely: they vary more, "
        "so that as many mixtures tell more",
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_or_list(cls, value: Any) -> Any:
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        if any(not isinstance(n, int) or isinstance(n, bool) for n in numbers):
            raise ValueError("Input should be a valid integer, or a list of distinct seed numbers")
        if len(set(numbers)) < len(numbers):
            raise ValueError("seed numbers have to be distinct")
        count = len(numbers) if isinstance(value, list | tuple) else value
        if count < 4:
            raise ValueError("the number of seeds has to be greater than or equal to 4")
        if count > 10_000 or min(numbers) < 0 or max(numbers) >= 1_000_000:
            raise ValueError("at most 10000 seeds, each from 0 to 999999")
        return value

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds of the study's mixtures."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))


class ProposalSettings(Settings):
    """Which shares of the sources are proposed (source_shares)."""

    nearness: Annotated[float, Field(gt=0)] = Field(
        0.05,
        description="What it costs to leave the shares of the data one has: the target (log loss) "
        "is weighed against so much times the Kullback-Leibler divergence from them, in nats",
    )
    repeats: Annotated[float, Field(ge=1)] = Field(
        4,
        description="How often an example may be repeated in a proposed mixture as large as all "
        "candidates (four epochs are about as good as new data: arXiv 2305.16264)",
    )


class FinetuningSettings(Settings):
    """How the base is finetuned; the paper gives LoRA (Hu et al. 2021), epochs and batch size."""

    ADDED: ClassVar[Mapping[str, Any]] = {
        "trainer": "lora",
        "options": {},
        "use_rslora": False,
        "use_dora": False,
    }
    UNCOUNTED: ClassVar[frozenset[str]] = frozenset({"checkpoint_minutes"})

    trainer: str = Field(
        "lora",
        description="How examples become a finetuned model (paper: LoRA). lora: an adapter over "
        "the shared base; full: all weights of a small base in fp32 or bf16; or a plugin's",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of a plugin's trainer, by name"
    )
    epochs: Positive = Field(3, description="Passes over the examples (paper: 3)")
    batch_size: Positive = Field(8, description="Examples in one step (paper: 8)")
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        3e-4, description="Peak learning rate of AdamW (not printed in the paper)"
    )
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the steps over which the learning rate rises to its peak"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="How the learning rate falls after the warm-up: to 0, or not at all"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.0, description="AdamW's decoupled weight decay of the trained weights"
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Gradients of a larger norm are scaled down to it"
    )
    lora_rank: Positive = Field(
        8, description="Rank of the update of a weight matrix: more can learn more, and costs more"
    )
    lora_alpha: Positive = Field(
        16, description="The update is scaled by lora_alpha / lora_rank: a larger one acts faster"
    )
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), description="Names of the base's linear layers that get an adapter"
    )
    use_rslora: bool = Field(
        False,
        description="Scale LoRA's update by lora_alpha / √lora_rank instead (rank-stabilized, "
        "arXiv 2312.03732)",
    )
    use_dora: bool = Field(
        False,
        description="LoRA learns the magnitude of each weight vector too (DoRA, arXiv "
        "2402.09353): slower; over int8 on a GPU only",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, slower"
    )
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = Field(
        10,
        description="A finetune that takes longer is saved so often, and goes on from there after "
        "a kill, to the same weights; ~: never",
    )


class EvaluationSettings(Settings):
    """The evaluation loss (paper: mean over D_eval of the inference loss)."""

    ADDED: ClassVar[Mapping[str, Any]] = {"take": "first", "sample_seed": 0, "holdout": None}
    ONLY_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "take": ("max_instructions", "max_outputs"),
        "sample_seed": ("max_instructions", "max_outputs"),
    }

    measures: tuple[Name, ...] = Field(
        ("loss",), description="What is measured of every finetune, beside the rule's target"
    )
    weighting: Literal["token", "instruction"] = Field(
        "token",
        description="The mean whose logarithm is regressed. token: over all response tokens; "
        "instruction: over instructions, each counting the same",
    )
    max_instructions: Positive | None = Field(
        None, description="Instructions evaluated on, those that `take` says; default: all"
    )
    max_outputs: Positive | None = Field(
        None,
        description="Reference outputs of an instruction, those that `take` says; default: all "
        "(paper: 5)",
    )
    take: Take = Field(
        "sample",
        description="Which instructions and outputs these two leave. sample: by a hash of content "
        "and seed; first: those that stand first in the set",
    )
    sample_seed: SampleSeed = Field(0, description="Another seed is another sample")
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Share of the instructions that no rule is fitted on, by a hash of each: "
        "verdicts, deciles, sizes and a judge are reported on these; default: all serve both. "
        "Nothing is finetuned or measured again when it changes",
    )
    max_output_tokens: Positive | None = Field(
        None,
        description="Tokens after which a reference output is cut; default: `models.max_length`",
    )
    tokens_per_batch: Positive = Field(
        2048,
        description="Tokens in a forward pass, padding included: memory and speed, not the result",
    )
    answer_tokens: Positive = Field(
        64, description="Tokens after which an answer ends, where a measure reads answers"
    )
