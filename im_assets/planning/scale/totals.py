"""What is to be computed: sets, tokens, rows. From a few numbers, or from the plan of a study."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from im_assets.planning.scale.models import MINILM_NUMBERS, MODELS, Model
from im_assets.planning.scale.ranges import Range
from im_resources.language_model.flops import Load
from im_resources.study import FinetuningSettings

Loads = tuple[Load, Load]  # at least, at most
# The paper's: tokens of prompt and response, as benchmarks/lengths.json has them of its sources and
# of its evaluation set (332 instructions with five reference outputs), at most 1024 a row.
PROMPT, RESPONSE = 91.2, 309.7
EVALUATED, EVALUATION_PROMPT, EVALUATION_OUTPUTS, OUTPUTS = 332, 85.8, 851.2, 5
# Of the text of a row: of the paper's four sources in equal shares; by source, Alpaca to wikiHow.
ROW_BYTES, ROW_BYTES_SEEN = 2040, Range(350, 4700)
EMBEDDED = 91.2 + 256  # all-MiniLM-L6-v2 reads 256 tokens of a text; prompt and response are two


@dataclass(frozen=True)
class Totals:
    """The work of a study. None: not known (of a plan before the data are read).

    Attributes:
        trials: finetunes, each evaluated once.
        batch: tokens of one adapter's training step.
        row_bytes: of a row's text.
        rows: of the pools that are cleaned, scored, and selected from.
        drawn: of the pool that sets are drawn from, times the sets.
        scored: examples.
        indicators: scores of an example that are stored.
        numbers: of an example's embedding; 0: none is kept.
        losses: rows of losses of one trial.
        scorer: the model whose forward pass scores; None: the base.
        unknown: why something is not known.
    """

    model: Model
    settings: FinetuningSettings
    trials: Range
    batch: float
    training: Loads | None
    evaluation: Loads | None
    scoring: Loads | None
    embedded: Range | None
    row_bytes: Range
    rows: Range | None
    drawn: Range | None
    scored: Range | None
    indicators: int
    numbers: int
    losses: int
    scorer: Model | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What if: a study by a few numbers, with the paper's settings for all others.

    Attributes:
        pool_rows: of the pool that sets are drawn from, and that is selected from.
        scored_rows: of these; None: all.
        scorer: name of the model that scores; None: the base.

    Raises ValueError naming the field, its value and what would do.
    """

    model: str
    trials: int = 1000
    pool_rows: int = 100_000_000
    examples: int = 2000
    epochs: int = 3
    scored_rows: int | None = None
    scorer: str | None = None
    indicators: int = 8

    def __post_init__(self) -> None:
        for name in ("model", "scorer"):
            if (value := getattr(self, name)) is not None and value not in MODELS:
                raise ValueError(f"{name}: unknown model {value!r}; known: {', '.join(MODELS)}")
        for name in ("trials", "pool_rows", "examples", "epochs", "indicators"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}: {value}; expected 1 or more")
        if self.scored_rows is not None and not 0 <= self.scored_rows <= self.pool_rows:
            raise ValueError(
                f"scored_rows: {self.scored_rows:,}; expected 0 to pool_rows, {self.pool_rows:,}"
            )
        if self.examples > self.pool_rows:
            raise ValueError(
                f"examples: {self.examples:,} of a set cannot be drawn from pool_rows, "
                f"{self.pool_rows:,}"
            )

    def totals(self) -> Totals:
        """The work that it means."""
        scored = self.pool_rows if self.scored_rows is None else self.scored_rows
        row = Load.of_rows([PROMPT + RESPONSE], [RESPONSE])
        asked = Load.of_prompts(
            [EVALUATION_PROMPT + EVALUATION_OUTPUTS], [EVALUATION_OUTPUTS], [OUTPUTS]
        )
        settings = FinetuningSettings(epochs=self.epochs, batch_size=8, lora_rank=8)
        return Totals(
            model=MODELS[self.model],
            settings=settings,
            trials=Range.of(self.trials),
            batch=settings.batch_size * (PROMPT + RESPONSE),
            training=_exactly(row * (self.trials * self.examples * self.epochs)),
            evaluation=_exactly(asked * (self.trials * EVALUATED)),
            scoring=_exactly(row * scored),
            embedded=Range.of(EMBEDDED * scored),
            row_bytes=Range.of(ROW_BYTES),
            rows=Range.of(self.pool_rows),
            drawn=Range.of(self.pool_rows * self.trials),
            scored=Range.of(scored),
            indicators=self.indicators,
            numbers=MINILM_NUMBERS,
            losses=EVALUATED * OUTPUTS,
            scorer=MODELS[self.scorer] if self.scorer else None,
        )


def _exactly(load: Load) -> Loads:
    return load, load
