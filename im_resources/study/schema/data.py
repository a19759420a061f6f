"""Where the examples come from, and which of them are kept."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from im_resources.study.schema.base import (
    Name,
    PoolName,
    Positive,
    SampleSeed,
    Settings,
    Take,
)

FieldMap: TypeAlias = dict[
    Literal["instruction", "input", "output", "category", "id", "answer", "pattern"], str
]


class DataSource(Settings):
    """Where instruction data is read from, and in which shape."""

    ADDED: ClassVar[Mapping[str, Any]] = {
        "max_line_mb": 10.0,
        "delimiter": None,
        "decimal": ".",
        "take": "first",
        "sample_seed": 0,
    }
    ONLY_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "take": ("limit",),
        "sample_seed": ("limit",),
    }

    path: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="Local file: .json, .jsonl, .parquet, .csv or .tsv, each also .gz or .zst; or "
        "a pattern with *, ** or ? for several, or a list of these. Relative to the project, "
        "${VARIABLES} expand. Give this or `hub`",
    )
    hub: str | None = Field(None, description="Hugging Face dataset id, instead of `path`")
    config: str | None = Field(None, description="Hugging Face dataset configuration")
    split: str = Field("train", description="Hugging Face dataset split")
    revision: str | None = Field(None, description="Hugging Face commit or tag; pins the data")
    format: str = Field(
        "alpaca",
        description="Shape of a row. alpaca: instruction, input, output; dolly: instruction, "
        "context, response; messages, sharegpt: conversations, all turns "
        "(docs/conversations.md); fields: columns as `fields` names them; or a format of a plugin",
    )
    fields: FieldMap | None = Field(
        None,
        description="For `format: fields`: which column holds the instruction, input, output and "
        "category; of an evaluation set also the answer, and the pattern (a regular expression), "
        "that a right response comes to. For any format: `id`, the column of the row's own id, by "
        "which it is found again (default: `id`; docs/tracing.md)",
    )
    outputs: str | None = Field(
        None,
        description="Column with a list of reference outputs, for an evaluation set (paper: five "
        "of an instruction)",
    )
    limit: Positive | None = Field(
        None, description="Rows used of the source, those that `take` says; default: all"
    )
    take: Take = Field(
        "sample",
        description="Which rows `limit` leaves. sample: usable ones by a hash of content and seed, "
        "whatever their order (a row more displaces at most one); first: of the file, read no "
        "further",
    )
    sample_seed: SampleSeed = Field(0, description="Another seed is another sample")
    max_line_mb: Annotated[float, Field(gt=0, le=2000)] = Field(
        10.0,
        description="Longest line of a JSONL file, and longest row of a CSV file, that is read, in "
        "MB; a longer one goes into quarantine",
    )

    delimiter: str | None = Field(
        None,
        description='What separates the fields of a CSV file, one character: ",", ";", "|", or '
        'a tab, written "\\t"; default: a tab in a .tsv file, in a .csv file what its first '
        "lines show",
    )
    decimal: Literal[".", ","] = Field(
        ".",
        description="What numbers that are read from text, such as scores in a CSV file, have "
        "before their decimals",
    )

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value.isalnum() or value in '" \r\n'):
            raise ValueError(
                'give the one character between two fields: ",", ";", "|" or "\\t", a tab, in '
                "double quotes"
            )
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of `path` (a local file) and `hub` (a dataset id)")
        mapped = set(self.fields or ()) - {"id"}
        misplaced = self.fields is None if self.format == "fields" else bool(mapped)
        if misplaced:
            raise ValueError(
                "`fields` goes with `format: fields`, and only with it (but `id`: with any format)"
            )
        if self.format != "fields":
            return self
        if "instruction" not in mapped:
            raise ValueError("`fields` has to map at least `instruction`")
        if "output" not in mapped and self.outputs is None:
            raise ValueError("`fields` has to map `output` (or the source sets `outputs`)")
        return self


class WithdrawnSettings(Settings):
    """Examples that no pool may hold, whatever its files say."""

    path: str = Field(
        description="A file of example_ids, one a line: rows of the candidates and unseen pools "
        "that are left out"
    )
    forget: bool = Field(
        False,
        description="Erase what was made of them too: scores, texts and answers in the warehouse, "
        "exports, landed files, and the finetunes that saw one",
    )


class DataSettings(Settings):
    """The candidate sources, the unseen pool and the evaluation set."""

    ADDED: ClassVar[Mapping[str, Any]] = {"withdrawn": None, "second_evaluation": None}

    candidates: dict[Name, DataSource] = Field(
        default_factory=dict,
        description="The sources that mixtures are drawn from, each under a name of your own "
        "(paper: Alpaca, OpenAssistant, StackExchange, WikiHow), or with `runs` that these are of. "
        "None, where a ready rule is applied and nothing is finetuned (`rule.source`)",
    )
    unseen: dict[PoolName, DataSource] = Field(
        min_length=1,
        description="The pools that are selected from, each under a name that its assets begin "
        "with; a single source without a name is called dolly. Nothing of them is finetuned on "
        "before the rule stands (paper: databricks-dolly-15k)",
    )
    evaluation: DataSource | None = Field(
        None,
        description="Instructions with reference outputs that every finetune is measured on "
        "(paper: 252 of Self-Instruct and 80 of Vicuna-bench). Without candidates, or with `runs`, "
        "it may be left out; given, whatever would leak it is left out of the selection",
    )

    second_evaluation: DataSource | None = Field(
        None,
        description="Instructions of another kind than `evaluation`, on which the arms of the "
        "validation are measured too; nothing is fitted on them. Default: none",
    )

    withdrawn: WithdrawnSettings | None = Field(
        None, description="Examples to leave out by their ids; default: none"
    )

    @field_validator("unseen", mode="before")
    @classmethod
    def _single_form(cls, value: Any) -> Any:
        """One pool may be given without a name; it is called dolly, as the paper's is."""
        single = isinstance(value, DataSource) or (
            isinstance(value, dict) and not all(isinstance(v, dict) for v in value.values())
        )
        return {"dolly": value} if single else value

    @field_validator("unseen")
    @classmethod
    def _own_tables(cls, pools: dict[str, DataSource]) -> dict[str, DataSource]:
        """Every pool has tables of its own, whose names the warehouse takes in any case."""
        others = {"example": "the candidates"}  # example_scores
        for name in pools:
            if (taken := others.get(name.lower())) is not None:
                raise ValueError(
                    f"the tables of a pool {name!r} would be those of {taken}; give it another name"
                )
            others[name.lower()] = f"the pool {name!r}"
        return pools

    @property
    def measured(self) -> dict[str, DataSource]:
        """The sources that finetunes are measured on, by their setting."""
        found = {"evaluation": self.evaluation, "second_evaluation": self.second_evaluation}
        return {name: source for name, source in found.items() if source is not None}

    @model_validator(mode="after")
    def _answers_are_of_evaluation(self) -> Self:
        pools = {f"candidates.{name}": source for name, source in self.candidates.items()}
        pools |= {f"unseen.{name}": source for name, source in self.unseen.items()}
        for name, source in pools.items():
            if given := {"answer", "pattern"} & set(source.fields or ()):
                raise ValueError(
                    f"{name}.fields.{min(given)}: only the evaluation set's answers are verified"
                )
        return self


class CleaningSettings(Settings):
    """Which rows are put into quarantine instead of into the study."""

    max_chars: Positive = Field(
        20_000, description="Characters of the longest instruction + input + output that is kept"
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9,
        description="Jaccard similarity (5-word shingles) from which the later of two rows is a "
        "near duplicate and is left out",
    )
    leak_ngram: Positive = Field(
        4,
        description="Words of the shortest run, shared with a text of the evaluation set, by which "
        "a row covers words of it",
    )
    leak_coverage: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6,
        description="Share of an evaluation text's words, each counted by how rare the shared run "
        "is among the rows, from which a row leaks it and is left out",
    )
