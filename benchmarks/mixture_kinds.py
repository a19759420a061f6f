"""Random, tilted or designed mixtures: whose rule holds where selections are made?

``python -m benchmarks.mixture_kinds --profile real_small --out DIR [--mixtures 24] [--repeats 4]
[--seeds 8]`` finetunes, and ``python -m benchmarks.mixture_kinds --read DIR`` tells again what a
run in DIR came to. The data of the profile have to be there: ``python -m im_assets.run data``.

Of each kind (``mixtures.kind``) as many mixtures, drawn anew in every repeat, give a rule. All
rules are then asked about the same sets, none of which was fitted on: other random and tilted
mixtures, random subsets of the unseen pool, and the ends of it by each indicator. Each rule then
cuts the pool into slices by its value, and selects from parts of the pool, one a seed; both are
finetuned on.

- ``error``: root mean square of predicted less measured log loss on the common sets, on the
  instructions that rules are fitted on;
- ``common``: Spearman on the common sets; ``slices``: Spearman of a rule's slices;
- ``selected``: loss on the instructions that are held out, selected less random, in standard
  deviations of a random subset's; negative is better.

Each with its mean over the repeats, and a 95 % interval of the difference from the random mixtures:
by Student's t over the repeats, whose mixtures share nothing but the pool.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, t

from im_assets.common.digests import digest
from im_assets.experiments.evaluation import (
    cached_losses,
    evaluated,
    evaluation_fingerprint,
    evaluation_rows,
    overall,
)
from im_assets.experiments.finetuning import Finetune, finetune_all
from im_assets.experiments.holdout import split_of
from im_assets.mixtures.design import expected_indicators
from im_assets.mixtures.drawing import draw_mixtures
from im_assets.mixtures.leaning import scored_pool, tilt_of, tilted_indicators
from im_assets.mixtures.series import TYPES, designed
from im_assets.mixtures.tilting import percentiles
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Rule
from im_assets.rule.transform import transformed
from im_assets.scoring.batch import Models
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import Indicator, chosen
from im_assets.scoring.scorer import score_missing
from im_assets.selection.pool import pool_indicators
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import MixtureSettings, Study, fingerprint, load_study
from im_resources.warehouse import Warehouse

Kind = Literal["random", "tilted", "designed"]
KINDS: tuple[Kind, ...] = ("random", "tilted", "designed")
OTHER = 900_000  # numbers of the mixtures that all rules are asked about
SLICES = 8
COMMON = ("other random", "other tilted", "random subset", "end")


@dataclass(frozen=True)
class Set:
    """A set to finetune on.

    Attributes:
        family: mixture, one of COMMON, slice or selected.
        of: the rule that it belongs to, as kind and repeat; "" where all rules share it.
        place: its number among its likes; of a slice, 0 being the best by the rule.
    """

    family: str
    of: str
    place: int
    seed: int
    members: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.family}/{self.of}/{self.place}"


class Bench:
    """The profile's pools, scored, and what trains and measures sets of them."""

    def __init__(self, study: Study) -> None:
        self.study, self.gpu = study, GpuResource()
        self.warehouse = Warehouse(study.warehouse)
        self.store = AdapterStore(study.folder / "adapters")
        self.models = Models.of(study, self.gpu)
        self.indicators = chosen(study.scoring)
        self.names = [indicator.name for indicator in self.indicators]
        single = [i for i in self.indicators if i.backend.scope == "example"]
        wanted = {"candidate_datasets": single, f"{study.pools[0]}_dataset": self.indicators}
        self.texts = {name: self.warehouse.read_table(name) for name in wanted}
        frames = {name: self.scores(self.texts[name], of) for name, of in wanted.items()}
        candidates, unseen = self.texts.values()
        tilted = tilted_indicators(study)
        scores, other = frames.values()
        kept = percentiles(scores[scores["indicator"].isin(tilted)].astype({"indicator": str}))
        self.candidates = scored_pool(candidates, scores, kept, study.rule.transform)
        versions = {i.name: i.fingerprint(self.models) for i in self.indicators}
        ids = unseen["example_id"].tolist()
        self.pool = pool_indicators(
            ids, other, study, lambda: self.vectors(ids), study.mixtures.size, versions
        )
        own = pd.DataFrame(
            dict(self.candidates.values), index=self.candidates.examples["example_id"]
        )
        names = [i.name for i in single]
        pooled = self.pool[names].apply(lambda c: transformed(c, study.rule.transform))
        values = pd.concat([own[names], pooled])
        self.values = values[~values.index.duplicated()]
        columns = ["example_id", "instruction", "input", "output"]
        texts = pd.concat(frame[columns] for frame in self.texts.values())
        self.text = texts.drop_duplicates("example_id").set_index("example_id")

    def scores(self, examples: pd.DataFrame, indicators: Sequence[Indicator]) -> pd.DataFrame:
        told = lambda done, todo: print(f"scored {done} of {todo}", flush=True)  # noqa: E731
        return score_missing(examples, indicators, self.models, self.warehouse, told)[0]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        return embeddings_of(list(ids), self.models, self.warehouse)

    def settings(self, kind: Kind) -> MixtureSettings:
        return self.study.mixtures.model_copy(update={"kind": kind})

    def mixtures(
        self, kind: Kind, numbers: Sequence[int], family: str = "mixture", of: str = ""
    ) -> Iterator[Set]:
        """The mixtures with some numbers."""
        settings, names, pool = self.settings(kind), tilted_indicators(self.study), self.candidates
        weights = None
        if kind != "random":
            weights = lambda n: pool.log_weights(tilt_of(n, names, settings))  # noqa: E731
        drawn = draw_mixtures(pool.examples, numbers, settings.size, settings.shares, weights)
        for place, (number, mixture) in enumerate(drawn):
            yield Set(family, of, place, number, tuple(mixture["example_id"]))

    def numbers(self, kind: Kind, repeat: int, count: int) -> list[int]:
        """The numbers of a repeat's mixtures: its own, of a design the most telling of its own."""
        every = self.study.mixtures.candidate_seeds
        own = list(range(every * repeat, every * (repeat + 1)))
        if kind != "designed":
            return own[:count]
        series = pd.DataFrame(
            {"seed": [f"seed-{i:03d}" for i in range(count)], "version": 1, "refit": False,
             "retired": False, "as_of": 1, "number": range(count)}
        ).astype(TYPES)  # fmt: skip
        settings, names, pool = self.settings(kind), tilted_indicators(self.study), self.candidates
        sizes = pool.examples["source"].value_counts()
        held = {str(source): int(n) for source, n in sizes.items()}

        def expect(_: int, numbers: Sequence[int]) -> pd.DataFrame:
            mine = [every * repeat + number for number in numbers]
            tilts = {number: tilt_of(number, names, settings) for number in mine}
            return expected_indicators(held, pool.expected(tilts), mine, settings.size)

        found = designed(series, series["seed"], expect, every - count)["number"]
        return [every * repeat + int(number) for number in found]

    def common(self, count: int) -> list[Set]:
        """The sets that all rules are asked about."""
        numbers = range(OTHER, OTHER + count)
        found = [*self.mixtures("random", numbers, "other random")]
        found += self.mixtures("tilted", range(OTHER + count, OTHER + 2 * count), "other tilted")
        size, ids = self.study.mixtures.size, list(self.pool.index)
        for place in range(2 * count):
            drawn = by_digest(ids, place, "subset")[:size]
            found.append(Set("random subset", "", place, place, tuple(drawn)))
        for place, name in enumerate(self.values.columns):
            order = self.pool[name].sort_values(kind="stable").index
            # From a tenth of the pool at each end, so that no rare oddity is all there is.
            for end, part in enumerate((order[: len(order) // 10], order[-len(order) // 10 :])):
                drawn = by_digest(part, 0, f"end:{name}")[:size]
                found.append(Set("end", "", 2 * place + end, 2 * place + end, tuple(drawn)))
        return found

    def by_rule(self, rule: Rule, of: str, seeds: int) -> list[Set]:
        """Slices of the pool by the rule's value, and its selection from each part of the pool."""
        size, found = self.study.mixtures.size, []
        badness = pd.Series(rule.badness(self.pool), self.pool.index).sort_values(kind="stable")
        for place, part in enumerate(np.array_split(badness.index.to_numpy(), SLICES)):
            drawn = by_digest(part, 0, "slice")[:size]
            found.append(Set("slice", of, place, place, tuple(drawn)))
        part_of = np.array([int(digest(0, f"part:{i}")[:8], 16) % seeds for i in badness.index])
        for seed in range(seeds):
            best = badness.index[part_of == seed][:size]
            found.append(Set("selected", of, seed, seed, tuple(best)))
        return found

    def measured(self, sets: Sequence[Set]) -> pd.DataFrame:
        """One row a set: its indicators, and its log loss on either part of the instructions."""
        members = {member for one in sets for member in one.members}
        candidates = self.texts["candidate_datasets"]
        self.scores(candidates[candidates["example_id"].isin(members)], self.indicators)
        work = {
            one.key: Finetune(
                one.key,
                one.seed,
                self.text.loc[list(one.members)].rename_axis("example_id").reset_index(),
            )
            for one in sets
        }
        eval_set = self.warehouse.read_table("eval_set")
        rows = evaluation_rows(eval_set, self.study.evaluation)
        split = split_of(eval_set, self.study.evaluation)
        base, shared = (
            self.gpu.base_fingerprint(self.study),
            evaluation_fingerprint(rows, self.study),
        )
        trials = {key: finetune.trial_id(self.study, base) for key, finetune in work.items()}
        keys = {key: fingerprint(trial, shared) for key, trial in trials.items()}
        known = cached_losses(self.warehouse, keys.values())
        todo = {key: finetune for key, finetune in work.items() if keys[key] not in known}
        for done, _ in enumerate(finetune_all(todo, self.study, self.gpu, self.store), 1):
            if done % 20 == 0:
                print(f"finetuned {done} of {len(todo)}", flush=True)
        losses, _ = evaluated(trials, rows, self.study, self.gpu, self.store, self.warehouse)
        weighting, found = self.study.evaluation.weighting, []
        for one in sets:
            mine = losses[one.key]
            parts = {
                f"{name}_loss": np.log(overall(part.of(mine), weighting))
                for name, part in (("fitted", split.fitting), ("reported", split.reported))
            }
            told = {"key": one.key, "family": one.family, "of": one.of, "place": one.place}
            found.append(told | self._indicators(one) | parts | {"members": list(one.members)})
        return pd.DataFrame(found)

    def _indicators(self, one: Set) -> dict[str, float]:
        found = self.values.loc[list(one.members)].mean().to_dict()
        for indicator in self.indicators:
            if indicator.backend.scope != "example":
                value = indicator.of_set(self.vectors(one.members))
                found[indicator.name] = float(transformed(value, self.study.rule.transform))
        return {name: float(found[name]) for name in self.names}

    def fit(self, points: pd.DataFrame) -> Rule:
        """The rule on these points, as the profile fits it."""
        table = points.assign(log_loss=points["fitted_loss"], transform=self.study.rule.transform)
        table = table.drop(columns="members").rename(columns={"key": "partition"})
        return fit_rule(table.reset_index(drop=True), self.names, self.study.rule)


def by_digest(ids: Iterable[str], seed: int, what: str) -> list[str]:
    """In a random order that belongs to a seed and a name."""
    return sorted(map(str, ids), key=lambda i: digest(seed, f"{what}:{i}"))


def measure(study: Study, count: int, repeats: int, seeds: int, out: Path) -> None:
    """Finetune all sets, and keep what was measured in ``out``."""
    bench = Bench(study)
    names = [f"{kind} {repeat}" for repeat in range(repeats) for kind in KINDS]
    sets: list[Set] = []
    for repeat in range(repeats):
        for kind in KINDS:
            numbers = bench.numbers(kind, repeat, count)
            sets += bench.mixtures(kind, numbers, of=f"{kind} {repeat}")
    points = bench.measured([*sets, *bench.common(2 * seeds)])
    out.mkdir(parents=True, exist_ok=True)
    points.drop(columns="members").to_json(out / "sets.json", orient="records", indent=0)
    rules = {of: bench.fit(points[points["of"] == of]) for of in names}
    ranking = {of: rule for of, rule in rules.items() if rule.indicators}
    later = [one for of, rule in ranking.items() for one in bench.by_rule(rule, of, seeds)]
    if later:
        points = pd.concat([points, bench.measured(later)], ignore_index=True)
    for of, rule in rules.items():
        table = points.assign(transform=study.rule.transform)
        points[f"predicted {of}"] = rule.predict_points(table)
    points.drop(columns="members").to_json(out / "sets.json", orient="records", indent=0)
    told = {of: rule.model_dump(mode="json") for of, rule in rules.items()}
    (out / "rules.json").write_text(json.dumps(told), encoding="utf-8")


def figures(points: pd.DataFrame, rules: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row a rule: what it was fitted on, and how it does where it was not."""
    found = []
    random = points[points["family"] == "random subset"]["reported_loss"]
    for of, rule in rules.items():
        mine = points[points["of"] == of]
        fitted = mine[mine["family"] == "mixture"]
        common = points[points["family"].isin(COMMON)]
        row: dict[str, Any] = {
            "kind": of.split()[0],
            "repeat": int(of.split()[1]),
            "spread of losses": fitted["fitted_loss"].std(),
            "indicators": len(rule["coefficients"]),
            "R2": rule["r2"],
            "left out": rule["loo_spearman"],
            "p of chance": rule["chance"]["loo_r2"]["p"],
        }
        for name, part in (("", common), *common.groupby("family")):
            predicted, actual = part[f"predicted {of}"], part["fitted_loss"]
            row[f"error{name and ': ' + name}"] = np.sqrt(np.mean((predicted - actual) ** 2))
            ranks = spearmanr(predicted, actual).statistic if np.ptp(predicted) > 0 else 0.0
            row[f"common{name and ': ' + name}"] = ranks
        slices = mine[mine["family"] == "slice"]
        # A rule that ranks nothing has no slices, and selects at random.
        row["slices"] = 0.0
        if len(slices):
            row["slices"] = spearmanr(slices["place"], slices["reported_loss"]).statistic
        selected = mine[mine["family"] == "selected"]["reported_loss"]
        row["selected"] = 0.0
        if len(selected):
            row["selected"] = (selected.mean() - random.mean()) / random.std()
        found.append(row)
    return pd.DataFrame(found)


def told(found: pd.DataFrame) -> str:
    """The figures of each kind, and how they differ from those of the random mixtures, Markdown."""
    numbers = [c for c in found.columns if c not in ("kind", "repeat")]
    lines = [
        "| | " + " | ".join(KINDS) + " | tilted − random | designed − random |",
        "|---" * 6 + "|",
    ]
    wide = {
        kind: part.set_index("repeat")[numbers].astype(float)
        for kind, part in found.groupby("kind")
    }
    for name in numbers:
        cells = [f"{wide[kind][name].mean():.3f}" for kind in KINDS]
        for kind in KINDS[1:]:
            cells.append(_difference((wide[kind][name] - wide["random"][name]).dropna().to_numpy()))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(values: np.ndarray) -> str:
    if len(values) < 2:
        return "" if not len(values) else f"{values.mean():+.3f}"
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}]"


def main() -> None:
    """Measure, or read what was measured, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="real_small")
    parser.add_argument("--mixtures", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    arguments = parser.parse_args()
    folder = arguments.read or arguments.out
    if folder is None:
        parser.error("--out DIR, or --read DIR")
    if arguments.read is None:
        study = load_study(arguments.profile)
        measure(study, arguments.mixtures, arguments.repeats, arguments.seeds, folder)
    points = pd.read_json(folder / "sets.json")
    rules = json.loads((folder / "rules.json").read_text(encoding="utf-8"))
    print(told(figures(points, rules)))


if __name__ == "__main__":
    main()
