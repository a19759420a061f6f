"""Versions in the catalog: what makes an asset stale, and what does not.

An asset's *code version* covers its code and exactly the settings that it reads, and those of
everything it is made from: a changed setting marks the asset and what follows, and nothing beside.
Its *data version* is a hash of its content, so that a table written again with the same rows marks
nothing (https://docs.dagster.io/guides/build/assets/asset-versioning-and-caching).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

READS = "settings"  # the metadata entry in which an asset names the settings that it reads


def content_version(*frames: pd.DataFrame) -> str:
    """A hash of the frames' columns and rows, in their order; 16 hex digits."""
    return version_of_hashes(*((list(frame.columns), row_hashes(frame)) for frame in frames))


def stored_version(table: str, warehouse: Warehouse) -> str:
    """The `content_version` of a table of the warehouse, which is not held in memory."""
    digest, columns = hashlib.sha256(), list(warehouse.column_types(table))
    digest.update(repr(columns).encode())
    with warehouse.frames(table) as frames:
        for frame in frames:
            digest.update(row_hashes(frame).tobytes())
    return digest.hexdigest()[:16]


def row_hashes(frame: pd.DataFrame) -> np.ndarray:
    """A hash of each row, uint64 [rows], which depends on nothing but the row."""
    found: np.ndarray = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return found


def version_of_hashes(*tables: tuple[Sequence[object], np.ndarray]) -> str:
    """The `content_version` of tables of which there are the columns and the rows' hashes."""
    digest = hashlib.sha256()
    for columns, hashes in tables:
        digest.update(repr([str(column) for column in columns]).encode())
        digest.update(hashes.tobytes())
    return digest.hexdigest()[:16]


def merged_version(parts: Iterable[object]) -> str:
    """One version of several: the same whatever their order, and however often one occurs.

    Dagster gives the partitions that one step makes one data version. That of a partition must not
    depend on which others the run happened to make, so it is built from what they have in common.
    """
    return fingerprint(sorted(set(map(str, parts))))


def settings_read(study: Study, paths: Sequence[str]) -> dict[str, Any]:
    """The values of dotted settings such as ``finetuning`` or ``models.prompt``.

    Raises AttributeError for a setting that there is none of.
    """
    values: dict[str, Any] = {}
    for path in paths:
        value: Any = study
        for part in path.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
            if value is None:
                break
        values[path] = value
    return values


def with_version(asset: dg.AssetsDefinition, *parts: object) -> dg.AssetsDefinition:
    """The asset with a code version that covers ``parts`` too: what its settings only name."""
    return asset.map_asset_specs(
        lambda spec: spec.replace_attributes(
            code_version=f"{spec.code_version}+{fingerprint(*parts)[:8]}"
        )
    )


def with_settings(
    assets: Sequence[dg.AssetsDefinition],
    study: Study,
    keys: Mapping[str, Callable[[Study], Any]],
) -> list[dg.AssetsDefinition]:
    """The assets with code versions that cover the settings they read, and their parents' ones.

    An asset without a code version records what came from outside, and has none that others could
    be made from: that there is one makes nothing stale.

    Args:
        keys: what stands for a setting that names entries of a registry, by its path: the entries'
            own versions with it; None where it does not count, as one that was added later at its
            first value.
    """
    specs = {spec.key: spec for asset in assets for spec in asset.specs}
    versioned = {key for key, spec in specs.items() if spec.code_version is not None}
    versions: dict[dg.AssetKey, str] = {}

    def version(key: dg.AssetKey) -> str:
        if key not in versions:
            spec = specs[key]
            paths = spec.metadata.get(READS, ())
            own = settings_read(study, paths)
            own |= {path: keys[path](study) for path in paths if path in keys}
            own = {p: value for p, value in own.items() if value is not None or p not in keys}
            parents = {dep.asset_key for dep in spec.deps if dep.asset_key in versioned}
            made_from = sorted(version(parent) for parent in parents)
            hashed = fingerprint(own, made_from)[:8]
            versions[key] = f"{spec.code_version}.{hashed}"
        return versions[key]

    return [
        asset.map_asset_specs(
            lambda spec: (
                spec.replace_attributes(code_version=version(spec.key))
                if spec.key in versioned
                else spec
            )
        )
        for asset in assets
    ]
