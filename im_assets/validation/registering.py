"""Registered before: what is going to be compared, and how, written down before a loss is known.

A verdict counts for more when nobody could choose the sizes, arms, seeds, instructions or tests
after having seen losses (Nosek et al. 2018, *The preregistration revolution*, PNAS 115(11)). So the
analysis is hashed and kept, with the time and with what had been measured by then, before the first
loss of the validation is. The table only grows: an analysis that was registered once keeps its
first time, and one that is changed later stands beside it. What is reported is compared with it.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from im_assets.common.components import CONFIDENCE
from im_assets.experiments.evaluation import CACHE, evaluation_fingerprint, evaluation_rows
from im_assets.experiments.finetuning import training_settings_id
from im_assets.rule.provenance import named
from im_assets.scoring.registry import chosen
from im_resources.study import Study, fingerprint
from im_resources.study.fingerprints import settings_content
from im_resources.warehouse import Warehouse

TABLE = "registered_analysis"
COLUMNS = {
    "registered_at": ("text", "When it was registered, UTC"),
    "analysis_id": ("text", "Hash of the analysis"),
    "analysis": ("text", "The analysis as JSON"),
    "losses_there": ("bigint", "Finetunes on selections whose losses were there by then"),
    "trials_there": ("text", "Their trials, a JSON list"),
}
# The code of the analysis: a version changes when the same losses would give another outcome.
VERSIONS = {
    "validation_runs": "4",
    "noise_floor": "3",
    "selection_validation": "4",
    "rule_deciles": "2",
    "second_validation": "1",
}
# Of these blocks, what changes no loss and no verdict.
NO_MATTER = {
    "mixtures": {"candidate_seeds"},
    "evaluation": {"tokens_per_batch"},
    "judge": {"key_variable", "max_requests", "timeout", "retries"},
}
# Whose losses are of selections: the validation's, and those of a searched size.
LOSSES = {"selection_adapters": "selection_losses", "size_adapters": "size_losses"}

Outcome = Literal["before", "late", "changed", "other_settings", "never"]


def analysis_of(
    study: Study, eval_set: pd.DataFrame, second: pd.DataFrame | None = None
) -> dict[str, Any]:
    """All that decides what is compared and how, by setting; see ``differences``.

    Args:
        second: the second evaluation set, where the study has one.
    """
    blocks = ("rule", "mixtures", "finetuning", "evaluation", "selection", "validation", "judge")
    found: dict[str, Any] = {}
    for name in blocks:
        block = getattr(study, name)
        content = None if block is None else settings_content(block)
        found[name] = content and {
            key: value for key, value in content.items() if key not in NO_MATTER.get(name, ())
        }
    for name, whole in (("evaluation set", eval_set), ("second evaluation set", second)):
        if whole is not None:
            rows = evaluation_rows(whole, study.evaluation)
            found[name] = evaluation_fingerprint(rows, study)
    found["indicators"] = {
        i.name: [i.backend.name, i.backend.version, i.options] for i in chosen(study.scoring)
    }
    found["base"] = named(study.models.needed("base"))
    found["trainer and prompt"] = training_settings_id(study)
    found["level of the intervals"] = CONFIDENCE
    found["code"] = {
        name: version
        for name, version in VERSIONS.items()
        if name != "second_validation" or second is not None
    }
    plain: dict[str, Any] = json.loads(written(found))
    return plain


def written(analysis: Mapping[str, Any]) -> str:
    """An analysis as JSON, its keys in order."""
    return json.dumps(analysis, sort_keys=True, ensure_ascii=False, default=str)


def analysis_id(analysis: Mapping[str, Any]) -> str:
    """The hash of an analysis, 16 hex digits."""
    return fingerprint("analysis", written(analysis))


def registered(
    before: pd.DataFrame | None, analysis: Mapping[str, Any], measured: Collection[str], now: str
) -> pd.DataFrame:
    """The registrations with this analysis among them; one that is there already stays as it is.

    Args:
        before: the registrations so far; None: there are none.
        measured: the trials on selections whose losses are there.
        now: the time.
    """
    key = analysis_id(analysis)
    if before is not None and key in set(before["analysis_id"]):
        return before
    row = (now, key, written(analysis), len(measured), json.dumps(sorted(measured)))
    new = pd.DataFrame([row], columns=list(COLUMNS))
    return new if before is None else pd.concat([before[list(COLUMNS)], new], ignore_index=True)


def measured_trials(warehouse: Warehouse, evaluation_id: str) -> set[str]:
    """The trials on selections whose losses are there: in a table, or found by a run that ended
    before it wrote one."""
    found: set[str] = set()
    cached: set[str] = set()
    if warehouse.has_table(CACHE):
        cached = set(warehouse.query(f'SELECT DISTINCT fingerprint FROM "{CACHE}"')["fingerprint"])
    for adapters, losses in LOSSES.items():
        if warehouse.has_table(losses):
            found |= set(warehouse.query(f'SELECT DISTINCT trial_id FROM "{losses}"')["trial_id"])
        if warehouse.has_table(adapters):
            trials = warehouse.read_table(adapters, ["trial_id"])["trial_id"]
            found |= {t for t in trials if fingerprint(t, evaluation_id) in cached}
    return found


@dataclass(frozen=True)
class Registration:
    """Whether what is reported is what was registered, and when that was.

    Attributes:
        outcome: before: registered before any of the losses was measured; late: after some were;
            changed: another analysis was registered; other_settings: the verdicts are of another
            analysis than the profile's; never: none was.
        there: of the losses reported, how many were there when it was registered.
        losses: how many losses are reported.
        differs: the settings in which it differs from what was registered before it, at
            ``earlier_at``.
        registrations: how many analyses were registered.
    """

    outcome: Outcome
    losses: int
    registrations: int
    analysis_id: str = ""
    registered_at: str = ""
    there: int = 0
    differs: tuple[str, ...] = ()
    earlier_at: str = ""

    @property
    def words(self) -> str:
        """The same as a sentence."""
        when = f"on {self.registered_at} ({self.analysis_id})"
        differs = ", ".join(self.differs)
        if self.outcome == "before":
            said = f"This analysis was registered before any of these losses was measured, {when}."
        elif self.outcome == "late":
            said = (
                f"This analysis was registered after {self.there} of {self.losses} losses were "
                f"there, {when}."
            )
            if differs:
                said += (
                    f" The one registered before it, on {self.earlier_at}, differs in {differs}."
                )
        elif self.outcome == "changed":
            said = f"This is not what was registered {when}: it differs in {differs}."
        elif self.outcome == "other_settings":
            return (
                "These verdicts were made by another analysis than the profile's: materialize "
                "validation_runs, and what follows, before comparing it with what was registered."
            )
        else:
            return "This analysis was not registered before its losses were measured."
        if self.registrations > 1:
            said += f" {self.registrations} analyses were registered in all."
        return said


def registration(
    registrations: pd.DataFrame | None,
    analysis: Mapping[str, Any],
    made_by: str,
    trials: Collection[str],
) -> Registration:
    """What was registered, beside what is reported.

    Args:
        registrations: as ``registered`` gives them; None: there are none.
        analysis: the profile's, as it is now.
        made_by: the hash of the analysis that the verdicts were made by.
        trials: those behind the verdicts.
    """
    known = {str(trial) for trial in trials}
    key, count = analysis_id(analysis), 0 if registrations is None else len(registrations)
    if made_by != key:
        return Registration("other_settings", len(known), count)
    if registrations is None or not count:
        return Registration("never", len(known), 0)
    registrations = registrations.reset_index(drop=True)
    mine = registrations[registrations["analysis_id"] == key]
    if mine.empty:
        last = registrations.iloc[-1]
        return Registration(
            "changed",
            len(known),
            count,
            str(last["analysis_id"]),
            str(last["registered_at"]),
            differs=tuple(differences(json.loads(last["analysis"]), analysis)),
        )
    row, place = mine.iloc[0], int(mine.index[0])
    there, when = len(known & set(json.loads(row["trials_there"]))), str(row["registered_at"])
    if not there:
        return Registration("before", len(known), count, key, when)
    late = Registration("late", len(known), count, key, when, there)
    if not place:
        return late
    earlier = registrations.iloc[place - 1]
    differs = tuple(differences(json.loads(earlier["analysis"]), analysis))
    return replace(late, differs=differs, earlier_at=str(earlier["registered_at"]))


def differences(one: Mapping[str, Any], other: Mapping[str, Any], place: str = "") -> list[str]:
    """The dotted settings in which two analyses differ."""
    found: list[str] = []
    for key in sorted({*one, *other}):
        name, (a, b) = f"{place}{key}", (one.get(key), other.get(key))
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}.")
        elif a != b:
            found.append(name)
    return found
