"""What the plan of a study takes in a deployment: ``--plan --deployment``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from im_assets.planning.rates import ROW_BYTES
from im_assets.planning.scale.coefficients import coefficients
from im_assets.planning.scale.machines import MACHINES
from im_assets.planning.scale.models import MINILM_NUMBERS, Model
from im_assets.planning.scale.needs import Needs, Prices, needs_of
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.telling import cell, fits, unmeasured
from im_assets.planning.scale.totals import EMBEDDED, ROW_BYTES_SEEN, Loads, Totals
from im_assets.planning.work import Plan, Work
from im_assets.scoring.registry import chosen
from im_resources.deployment import Capacity, Deployment, RayExecutor
from im_resources.language_model.flops import FlopsError, Load, shape_of
from im_resources.language_model.loading import ModelError
from im_resources.study import Study

ONE = Capacity(gpu="h100", gpus=1)  # what is told where a deployment says no capacity
EVALUATION = ("eval_set", "second_eval_set")  # read, and in no pool
UNREAD = "not known before the data are read"


class CannotTell(RuntimeError):
    """What a plan takes cannot be told; says why, and what can."""


@dataclass(frozen=True)
class Deployed:
    """What a plan takes in a deployment. ``notes``: what else there is to say."""

    deployment: str
    capacity: Capacity
    needs: Needs
    notes: tuple[str, ...]


def deployed(plan: Plan, study: Study, deployment: Deployment) -> Deployed:
    """What is left of a plan, in hours, bytes and requests of a deployment.

    Raises CannotTell for a study without a base, or whose base cannot be read or is of a kind whose
    operations nobody counts.
    """
    notes = []
    if (capacity := deployment.capacity) is None:
        capacity = ONE
        notes.append(
            f"the deployment {deployment.name!r} says no `capacity`, such as "
            "capacity: {gpu: h100, gpus: 8}: told of one h100"
        )
    executor = deployment.executor
    if isinstance(executor, RayExecutor):
        shard = executor.examples_per_shard
        if executor.device == "cpu":
            notes.append("its executor computes on the cpu: told is what GPUs would take")
    else:
        shard = study.scoring.chunk
    priced = capacity.prices
    prices = Prices(
        gpu_hour=_price(priced.gpu_hour),
        core_hour=_price(priced.core_hour),
        tb_month=_price(priced.tb_month),
        months=priced.months,
        million_requests=_price(priced.million_requests),
    )
    paid = prices if prices != Prices(months=priced.months) else None
    precision = {"auto": "bf16"}.get(study.models.precision, study.models.precision)
    try:
        totals = totals_of(plan, study)
        needs = needs_of(
            totals, MACHINES[capacity.gpu], capacity.gpus, shard, paid,
            ways=[(precision, study.finetuning.gradient_checkpointing)],
        )  # fmt: skip
    except (ModelError, FlopsError, ValueError) as error:
        raise CannotTell(
            f"what it takes cannot be told: {error}; `python -m im_assets.planning.scale` tells it "
            "of a base by its size"
        ) from error
    if said := unmeasured(coefficients()):
        notes.append(said.replace("`", ""))
    notes.append("texts are taken to have 350 to 4,700 bytes a row, embeddings 768 numbers")
    return Deployed(deployment.name, capacity, needs, tuple(notes))


def totals_of(plan: Plan, study: Study) -> Totals:
    """What is left of a plan, from and to: an upper bound of the plan begins at nothing.

    Raises ModelError, FlopsError, ValueError: the base cannot be counted.
    """
    base, most = study.models.needed("base"), study.models.max_length
    model = Model.of("the base", shape_of(base))
    training, evaluating, scoring = (
        [work for work in plan.work if work.kind == kind]
        for kind in ("training", "evaluating", "scoring")
    )
    read = [w for w in plan.work if w.kind == "reading" and w.asset not in EVALUATION]
    rows = _sum(read, lambda w: w.total)
    trials, scored = _sum(training, lambda w: w.left), _sum(scoring, lambda w: w.left)
    outputs = [w.disk / w.left / (2 * ROW_BYTES) for w in evaluating if w.disk and w.left]
    embeds = any("embedding" in i.backend.uses for i in chosen(study.scoring))
    drawn = None if rows is None or trials is None else rows * trials
    return Totals(
        model=model,
        settings=study.finetuning,
        trials=trials or Range(0, 0),
        batch=study.finetuning.batch_size * most,
        training=_loads(training, most, study.finetuning.epochs),
        evaluation=_loads(evaluating, most, 1),
        scoring=_loads(scoring, most, 1),
        embedded=None if scored is None else scored * (EMBEDDED * embeds),
        row_bytes=ROW_BYTES_SEEN,
        rows=rows,
        drawn=drawn,
        scored=scored,
        indicators=len(study.scoring.indicators),
        numbers=MINILM_NUMBERS * embeds,
        losses=round(max(outputs, default=0)),
        unknown={"rows": UNREAD} if rows is None else {},
    )


def text(found: Deployed) -> str:
    """What it takes, as lines for a terminal."""
    capacity = found.capacity
    title = f"in the deployment {found.deployment!r}, on {capacity.gpus} {capacity.gpu}:"
    names = list(found.needs.figures)
    width = max(map(len, names))
    lines = [f"  {name.ljust(width)}  {cell(found.needs, name)}" for name in names]
    lines.insert(0, f"  {'a finetune on one GPU'.ljust(width)}  {fits(found.needs)}")
    return "\n".join([title, *lines, *(f"  {note}" for note in found.notes)])


def values(found: Deployed) -> dict[str, object]:
    """The same as JSON values."""
    return {
        "name": found.deployment,
        "gpu": found.capacity.gpu,
        "gpus": found.capacity.gpus,
        "precision": found.needs.way.precision,
        "fits": found.needs.way.fits,
        "figures": found.needs.values(),
        "notes": list(found.notes),
    }


def _sum(works: Sequence[Work], count: Callable[[Work], int | None]) -> Range | None:
    """A sum over works, of which upper bounds may be nothing; None where one is not known."""
    found = [(count(work), work.at_most) for work in works]
    known = [(number, at_most) for number, at_most in found if number is not None]
    if len(known) < len(found):
        return None
    return Range(sum(n for n, most in known if not most), sum(n for n, _ in known))


def _loads(works: Sequence[Work], most: int, passes: int) -> Loads | None:
    """What runs through the base: all tokens predicted or none, each attending to as few or as
    many others as can be. None where something is not known.

    Args:
        passes: of an example, where a work without tokens says only its examples.
    """
    low = high = Load(0, 0, 0)
    for work in works:
        if work.left is None:
            return None
        tokens = work.tokens
        if tokens is None:
            tokens = (work.size or work.left * passes) * most
        sure = work.tokens is not None and not (work.at_most or work.tokens_at_most)
        high = high + Load(tokens, tokens * most, tokens)
        low = low + (Load(tokens, tokens, 0) if sure else Load(0, 0, 0))
    return low, high


def _price(value: tuple[float, float] | None) -> Range | None:
    return None if value is None else Range(*value)
