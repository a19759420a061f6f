"""landed_files: what landed, and what came of it. The ledger of the landing as an asset."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from im_assets.common.presentation import presentation, preview
from im_assets.landing.admitting import Landing, land
from im_assets.landing.folder import Arrival, Folder, open_folder
from im_assets.landing.ledger import ADMITTED, COLUMNS, REJECTED, TABLE, LandedFile, create, entries
from im_assets.landing.watching import settled
from im_resources.study import LandingSettings, Study, fingerprint
from im_resources.warehouse import Warehouse

CHECK = "landings_admitted"
LANDING = "landing"  # metadata: the number of the last landing that was told of


class Complete(dg.Config):
    """Which files are complete; the sensor knows, having seen them twice."""

    signatures: list[str] = Field(
        [],
        description="Of the files that are complete. None given: it looks twice itself, and waits "
        "in between (landing.settle_seconds) if anything is there",
    )


def landing_asset(settings: LandingSettings) -> dg.AssetsDefinition:
    """The asset ``landed_files`` of a study with a landing folder."""

    @dg.asset(
        name=TABLE,
        description="Files that landed: each complete file of the landing folder, known by its "
        "content, is admitted to its source or unseen pool, or rejected with a reason. It leaves "
        "the folder either way.",
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=TABLE,
                description="Every file of the last landing was admitted. A rejected one lies in "
                "rejected/ of the landing folder, with the reason beside it",
            )
        ],
        **presentation("landing", {"python", "duckdb"}, COLUMNS, code_version=None),
    )
    def landed_files(
        context: dg.AssetExecutionContext,
        config: Complete,
        study: dg.ResourceParam[Study],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.MaterializeResult:
        folder = open_folder(settings.folder)
        complete = complete_files(folder, study, settings, config.signatures)
        create(warehouse)
        landing = land(complete, folder, study, warehouse, _told(context.instance))
        ledger = entries(warehouse)
        admitted = [(e.target, e.sha256) for e in ledger if e.status == ADMITTED]
        left = folder.look(targets(study)).left_alone
        return dg.MaterializeResult(
            metadata=metadata_of(landing, ledger) | {"left alone": left},
            data_version=dg.DataVersion(fingerprint(admitted)),
            check_results=[check(ledger, landing.stuck)],
        )

    return landed_files


def targets(study: Study) -> tuple[str, ...]:
    """What files can land for: the candidate sources and the unseen pools."""
    return (*study.data.candidates, *study.data.unseen)


def complete_files(
    folder: Folder, study: Study, settings: LandingSettings, signatures: Sequence[str]
) -> list[Arrival]:
    """The complete files that are there: marked, seen by the sensor, or the same in two looks."""
    arrivals = folder.look(targets(study)).arrivals
    if not signatures and not all(arrival.marked for arrival in arrivals):
        signatures = [arrival.signature for arrival in arrivals]
        time.sleep(settings.settle_seconds)
        arrivals = folder.look(targets(study)).arrivals
    return settled(arrivals, signatures)


def metadata_of(landing: Landing, ledger: Sequence[LandedFile]) -> dict[str, Any]:
    """What the catalog shows of a landing. Names are shown as text and interpreted nowhere."""
    kinds: Counter[str] = Counter()
    for entry in landing.entries:
        kinds.update(entry.unusable_by_kind)
    admitted = [entry for entry in landing.entries if entry.status == ADMITTED]
    return {
        LANDING: max((entry.landing for entry in ledger), default=0),
        "files": len(landing.entries) + len(landing.known),
        "admitted": len(admitted),
        "rejected": len(landing.entries) - len(admitted),
        "rows in": sum(entry.rows for entry in landing.entries),
        "rows admitted": sum(entry.usable for entry in admitted),
        "rows unusable, by kind": dict(kinds),
        "hashes": {f"{e.target}/{e.name}": e.sha256 for e in landing.entries},
        "landed before": landing.known,
        "changed meanwhile": landing.waiting,
        "stuck": landing.stuck,
        "landed": preview(_frame(ledger[::-1]), rows=20),
        "dagster/row_count": len(ledger),
    }


def check(ledger: Sequence[LandedFile], stuck: Mapping[str, str]) -> dg.AssetCheckResult:
    """Fails when a file of the last landing was rejected, or one cannot be taken."""
    number = max((entry.landing for entry in ledger), default=0)
    last = [entry for entry in ledger if entry.landing == number]
    rejected = {f"{e.target}/{e.name}": e.reason for e in last if e.status == REJECTED}
    wrong = {**rejected, **stuck}
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not wrong,
        metadata={LANDING: number, "files": len(last), "rejected": rejected, "stuck": dict(stuck)},
        description="; ".join(f"{name}: {why}" for name, why in wrong.items()) or None,
    )


def _frame(ledger: Sequence[LandedFile]) -> pd.DataFrame:
    return pd.DataFrame([vars(entry) for entry in ledger], columns=list(COLUMNS))


def _told(instance: dg.DagsterInstance) -> int:
    """The number of the last landing that the catalog tells of."""
    event = instance.get_latest_materialization_event(dg.AssetKey(TABLE))
    materialization = event.asset_materialization if event else None
    found: Mapping[str, Any] = materialization.metadata if materialization else {}
    return int(found[LANDING].value) if LANDING in found else 0


def definitions(study: Study) -> dg.Definitions:
    """The asset of this room, where the profile names a landing folder."""
    if study.landing is None:
        return dg.Definitions()
    open_folder(study.landing.folder)  # an unknown kind of URL is an error now
    return dg.Definitions(assets=[landing_asset(study.landing)])
