"""What Dagster's history says for a plan: what was made with other settings, and what it took."""

from collections.abc import Iterator, Mapping

import dagster as dg

from im_assets.candidates.files import SourceError, source_files
from im_assets.common.measuring import COMPUTED, SECONDS, TOKENS
from im_assets.mixtures.experiment import mixture_experiment
from im_assets.planning.rates import Ran
from im_assets.planning.work import Kind, sources_of
from im_resources.study import DataSource, ProfileError, Study

LOOKED_AT = 200  # materializations of an asset: each partition is one
CODE_VERSION = "dagster/code_version"
SCORED = "scored in this run"


def code_versions(study: Study) -> dict[str, str | None]:
    """The code version that each asset has now: it covers the settings that it is made from."""
    from im_assets.definitions import definitions  # imports every room, and this one

    # The profile's name is only what a step reads its settings by.
    graph = definitions(study, study.name).resolve_asset_graph()
    return {
        key.to_user_string(): graph.get(key).code_version
        for key in sorted(graph.get_all_asset_keys())
    }


def changed(
    study: Study, instance: dg.DagsterInstance, versions: Mapping[str, str | None]
) -> dict[str, str]:
    """Assets that may be of another content after the next run, and why.

    Args:
        versions: as of ``code_versions``.
    """
    found = {}
    files = sources_of(study)
    for name, version in versions.items():
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        made = event.asset_materialization if event is not None else None
        if event is None or made is None:
            continue
        if (made.tags or {}).get(CODE_VERSION) != version:
            found[name] = "settings that it is made from were changed"
        elif any(_newest(source) > event.timestamp for source in files.get(name, ())):
            found[name] = "its files were changed"
    return found


def ran(
    study: Study, instance: dg.DagsterInstance, versions: Mapping[str, str | None]
) -> list[Ran]:
    """The step of each kind that computed most of late, with the settings of now."""
    assets: dict[Kind, list[str]] = {
        "scoring": ["example_scores", *(f"{pool}_scores" for pool in study.pools)],
        "evaluating": [] if study.trains_nothing else [mixture_experiment(study).losses],
    }
    found = []
    for kind, names in assets.items():
        steps = [s for name in names for s in _steps(kind, name, versions.get(name), instance)]
        if steps:
            found.append(max(steps, key=lambda step: step.computed))
    return found


def _steps(
    kind: Kind, name: str, version: str | None, instance: dg.DagsterInstance
) -> Iterator[Ran]:
    records = instance.fetch_materializations(dg.AssetKey(name), limit=LOOKED_AT).records
    for record in records:
        made = record.asset_materialization
        if made is None or (made.tags or {}).get(CODE_VERSION) != version:
            continue
        numbers = {key: value.value for key, value in made.metadata.items()}
        computed = numbers.get(SCORED if kind == "scoring" else COMPUTED)
        if computed and SECONDS in numbers:
            seconds, tokens = float(str(numbers[SECONDS])), int(str(numbers.get(TOKENS, 0)))
            yield Ran(kind, int(str(computed)), tokens, seconds)
            return


def _newest(source: DataSource) -> float:
    """When the newest file of a source was written; 0 of the hub, and of files that are gone."""
    try:
        return max((p.stat().st_mtime for p in source_files(source)), default=0.0)
    except (SourceError, ProfileError, OSError):
        return 0.0
