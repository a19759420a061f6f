"""What a deployment file may say. Imports no Dagster, no Ray and no database."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from im_resources.study.places import expand_variables, resolve_path
from im_resources.study.schema.base import Name, Positive, Settings

# user:password@ of a URL, and password=… of a connection string.
SECRET = re.compile(r"://[^/@\s]*:[^/@\s]*@|(?:password|secret|token|key)\w*=", re.IGNORECASE)


def _without_secret(text: str) -> str:
    """The address with its variables expanded. Raises ValueError where it holds a secret."""
    expanded = expand_variables(text)
    if SECRET.search(expanded):
        raise ValueError(
            "holds a password or a key, which would be seen in logs and in the UI; leave it out, "
            "and set the environment variable of its kind where the platform runs: PGPASSWORD, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS"
        )
    return expanded


def _place(text: str) -> str:
    """A folder or a URL, without a slash at its end."""
    address = _without_secret(text)
    if not re.match(r"\w+:", address):
        return str(resolve_path(address))
    if not re.fullmatch(r"[a-z][a-z0-9+]*://[^/\s][^\s]*", address):
        raise ValueError("is no URL such as s3://bucket/folder, and no folder")
    return address.rstrip("/")


def _catalog(text: str) -> str:
    address = _without_secret(text)
    if not re.fullmatch(r"postgresql://[^\s/]*/[^\s/?]+(\?\S*)?", address):
        raise ValueError(
            "is no address of a Postgres database, such as postgresql://im@host:5432/im"
        )
    return address


Address = Annotated[str, AfterValidator(_without_secret)]
Place = Annotated[str, AfterValidator(_place)]
Catalog = Annotated[str, AfterValidator(_catalog)]


class LocalExecutor(Settings):
    """Everything in the process of the run."""

    kind: Literal["local"] = Field("local", description="local: in the process of the run")


class RayExecutor(Settings):
    """Finetunes, their evaluation and scoring on the nodes of a Ray cluster, in groups."""

    kind: Literal["ray"] = Field(description="ray: on the nodes of a Ray cluster")
    address: Address = Field(
        description="Ray's client server, such as ray://head:10001, on a private network: whoever "
        "reaches it executes code"
    )
    device: Literal["cuda", "cpu"] = Field(
        "cuda",
        description="What a group computes on; the same on all nodes, since a result depends on it",
    )
    gpus: float = Field(1, ge=0, description="GPUs of a group; 0 with device: cpu")
    cpus: float = Field(1, gt=0, description="CPU cores of a group")
    memory_gib: float = Field(
        0, ge=0, description="Memory of a group, which a node has to have free; 0: not asked for"
    )
    group_size: int = Field(
        0,
        ge=0,
        description="Finetunes that share the base on one GPU; 0: as many as give every slot of "
        "the cluster a few groups",
    )
    examples_per_shard: Positive = Field(
        2_000, description="Examples that are scored as one piece of work"
    )
    attempts: Positive = Field(
        3, description="How often a group is tried, each time on what the cluster has left"
    )
    wait_minutes: float = Field(
        15, gt=0, description="How long a group waits for a node with its resources to appear"
    )


class FileWarehouse(Settings):
    """One DuckDB file in the study's folder."""

    kind: Literal["duckdb"] = Field("duckdb", description="duckdb: a file in the study's folder")


class LakeWarehouse(Settings):
    """Tables as Parquet files, with their catalog in Postgres."""

    kind: Literal["ducklake"] = Field(description="ducklake: Parquet files and a catalog")
    catalog: Catalog = Field(
        description="The Postgres database, such as postgresql://im@host:5432/im; the password is "
        "$PGPASSWORD"
    )
    data: Place = Field(
        description="Where the Parquet files are: s3://…, gs://… or a folder that all share"
    )


def _from_to(value: Any) -> Any:
    """One price, or a list of the least and the most."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value, value]
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if isinstance(low, int | float) and isinstance(high, int | float) and 0 <= low <= high:
            return float(low), float(high)
    raise ValueError("expected a price such as 2.5, or from and to, such as [2, 3.5]")


Price = Annotated[tuple[float, float], BeforeValidator(_from_to)]


class PriceList(Settings):
    """What is paid, in whatever currency; each a number, or [from, to]."""

    gpu_hour: Price | None = Field(None, description="One GPU for an hour")
    core_hour: Price | None = Field(None, description="One CPU core for an hour")
    tb_month: Price | None = Field(None, description="10¹² bytes in the object store for a month")
    months: float = Field(1, gt=0, description="How long these are kept")
    million_requests: Price | None = Field(None, description="A million writes to the object store")


class Capacity(Settings):
    """The machines that there are, or are to be bought: read by plans alone (docs/scale.md)."""

    gpu: Literal["a100", "h100", "h200"] = Field(description="Kind of GPU, of 80 GB or more")
    gpus: Positive = Field(description="How many of it, over all nodes")
    prices: PriceList = Field(PriceList(), description="What they cost")


class Deployment(Settings):
    """Where a study runs; says nothing of what is computed."""

    name: Name = Field(description="Shown in logs and by the doctor")
    executor: LocalExecutor | RayExecutor = Field(
        LocalExecutor(), discriminator="kind", description="What does the work"
    )
    warehouse: FileWarehouse | LakeWarehouse = Field(
        FileWarehouse(), discriminator="kind", description="Where the tables are"
    )
    files: Place | None = Field(
        None,
        description="Where adapters, rules, selections and reports are: s3://…, gs://… or a folder "
        "that all share; below it, a folder a study. Left out: in the study's folder",
    )
    capacity: Capacity | None = Field(
        None, description="The machines, for what `--plan --deployment` tells of hours and money"
    )
