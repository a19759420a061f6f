"""``python -m im_assets.planning.scale``: what it takes, for who has to buy the machines.

Without arguments it prints what ``docs/scale.md`` holds. It reads no data and needs no model.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from im_assets.planning.scale.breaking import limits
from im_assets.planning.scale.checks import checks, checks_table
from im_assets.planning.scale.coefficients import CoefficientError, coefficients
from im_assets.planning.scale.machines import CPU, MACHINES, Machine
from im_assets.planning.scale.memory import WAYS
from im_assets.planning.scale.models import MODELS, QUESTIONS, REWARD, UNIEVAL
from im_assets.planning.scale.needs import HOUR, Needs, Prices, needs_of
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.telling import (
    amount,
    cell,
    coefficients_table,
    limits_table,
    needs_table,
    put,
    unmeasured,
)
from im_assets.planning.scale.totals import PROMPT, RESPONSE, Question

GPUS = [name for name in MACHINES if name != CPU]
SAMPLE = 1_000_000  # rows of the sample beside which the whole pool is told
PROXIES = ("1.5b", "0.5b")


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 2 on arguments that make no sense."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        return _answer(chosen)
    except (ValueError, CoefficientError) as error:
        parser.error(str(error))


def whole(text: str) -> int:
    """A count, also as 1e9."""
    try:
        value = float(text.replace("_", "").replace(",", ""))
    except ValueError:
        value = float("nan")
    if not value >= 0 or value != int(min(value, 1e18)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, such as 1000 or 1e9")
    return int(value)


def price(text: str) -> Range:
    """A price, or from and to: 2.5 or 2-3.5."""
    low, _, high = text.partition("-")
    try:
        return Range(float(low), float(high or low))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no price, such as 2.5, or from and to, such as 2-3.5"
        ) from error


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m im_assets.planning.scale",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", nargs="+", choices=MODELS, default=["7b", "70b"], help="size of the base")
    add("--trials", type=whole, default=1000, help="finetunes, each evaluated")
    add("--pool-rows", type=whole, nargs="+", default=[10**8, 10**9], metavar="N",
        help="rows of the pool that sets are drawn from and that is selected from")  # fmt: skip
    add("--gpu", choices=GPUS, default="h100", help="kind of GPU")
    add("--gpus", type=whole, nargs="+", default=[8, 64], metavar="N", help="how many of it")
    add("--precision", choices=["bf16", "int8", "nf4"], help="of the base; left out: what fits")
    add("--examples", type=whole, default=2000, help="of a set")
    add("--epochs", type=whole, default=3, help="passes over a set")
    add("--scored-rows", type=whole, metavar="N", help="rows of the pool that are scored; all")
    add("--scorer", choices=MODELS, help="model that scores; the base")
    add("--shard", type=whole, default=2000, help="examples that are scored as one piece of work")
    add("--head-gib", type=positive, default=64, help="memory of the machine with the run")
    add("--disk-tb", type=positive, default=1, help="its local disk, in 10^12 bytes")
    add("--gpu-hour", type=price, metavar="PRICE", help="of one GPU; 2.5, or 2-3.5")
    add("--core-hour", type=price, metavar="PRICE", help="of one CPU core")
    add("--tb-month", type=price, metavar="PRICE", help="of 10^12 bytes in the object store")
    add("--months", type=positive, default=1, help="that these are kept")
    add("--million-requests", type=price, metavar="PRICE", help="of writes to the object store")
    add("--json", action="store_true", help="the answers as JSON, for other programs")
    add("--all", action="store_true", help="also the checks and the coefficients")
    add("--page", type=Path, metavar="FILE", help="write the tables into a page that has a place "
        "for each, such as docs/scale.md")  # fmt: skip
    return parser


def _answer(chosen: argparse.Namespace) -> int:
    asked = {
        (model, rows): Question(
            model, chosen.trials, rows, chosen.examples, chosen.epochs, chosen.scored_rows,
            chosen.scorer,
        )
        for model in chosen.model
        for rows in chosen.pool_rows
    }  # fmt: skip
    machine = MACHINES[chosen.gpu]
    prices = Prices(
        chosen.gpu_hour, chosen.core_hour, chosen.tb_month, chosen.months, chosen.million_requests
    )
    paid = prices if prices != Prices(months=chosen.months) else None

    ways = [way for way in WAYS if chosen.precision in (None, way[0])]

    def ask(question: Question, gpus: int) -> Needs:
        return needs_of(question.totals(), machine, gpus, chosen.shard, paid, ways)

    columns = {
        f"{model}, {_rows(rows)}": {f"{n} {chosen.gpu}": ask(question, n) for n in chosen.gpus}
        for (model, rows), question in asked.items()
    }
    if chosen.json:
        print(json.dumps(_values(columns), indent=1))
        return 0
    less = _less([*asked.values()], machine, lambda question: ask(question, chosen.gpus[0]))
    broken = limits(
        [Question(m, chosen.trials, chosen.pool_rows[0], chosen.examples, chosen.epochs)
         for m in chosen.model],
        machine, max(chosen.gpus), chosen.head_gib, chosen.disk_tb, chosen.shard,
    )  # fmt: skip
    sections = {
        "needs": "\n\n".join([needs_table(columns, less), unmeasured(coefficients())]).strip(),
        "limits": limits_table(broken),
        "checks": checks_table(checks()),
        "coefficients": coefficients_table(coefficients()),
    }
    if chosen.page is not None:
        put(chosen.page, sections)
        return 0
    shown = sections if chosen.all else {name: sections[name] for name in ("needs", "limits")}
    title = f"{chosen.trials:,} trials of {chosen.examples:,} examples, {chosen.epochs} epochs"
    print("\n\n".join([title, *shown.values()]))
    return 0


def _less(
    asked: Sequence[Question], machine: Machine, ask: Callable[[Question], Needs]
) -> list[list[str]]:
    """What else could be done: less scoring, a smaller model for it, the paper's other models."""
    ways: list[tuple[str, Callable[[Question], Question]]] = [
        (f"together, with a {proxy} that scores", partial(replace, scorer=proxy))
        for proxy in PROXIES
    ]
    ways.append((f"together, with {SAMPLE:,} rows scored", _sampled))
    rows = [
        [title, *(cell(ask(other(question)), "GPU time together") for question in asked)]
        for title, other in ways
    ]
    for title, weights, times in (("reward model", REWARD, 1), ("UniEval", UNIEVAL, QUESTIONS)):
        cells = []
        for question in asked:
            scored = question.pool_rows if question.scored_rows is None else question.scored_rows
            rate = machine.rate("forward", weights, "bf16", coefficients())
            operations = Range.of(2.0 * weights * times * scored * (PROMPT + RESPONSE))
            cells.append(amount(None if rate is None else operations / rate * (1 / HOUR), "GPU-h"))
        rows.append([f"the paper's {title} on top", *cells])
    return rows


def _sampled(question: Question) -> Question:
    return replace(question, scored_rows=min(SAMPLE, question.pool_rows))


def _rows(rows: int) -> str:
    million, rest = divmod(rows, 1_000_000)
    if not million or rest:
        return f"{rows:,} rows"
    billion, rest = divmod(million, 1000)
    return f"{million:,} million rows" if rest else f"{billion:,} billion rows"


def _values(columns: dict[str, dict[str, Needs]]) -> dict[str, object]:
    return {
        title: {
            gpus: {
                "precision": needs.way.precision,
                "checkpointing": needs.way.checkpointing,
                "fits": needs.way.fits,
                "figures": needs.values(),
            }
            for gpus, needs in answers.items()
        }
        for title, answers in columns.items()
    }


if __name__ == "__main__":
    sys.exit(main())
