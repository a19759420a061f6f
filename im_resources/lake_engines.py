"""DuckDB with a lake attached, kept by a process for as long as the lake answers.

To load the extensions takes 0.2 s, to attach 0.05 s; a statement on an attached lake takes some
milliseconds, and sees what others have committed. A DuckDB whose lake is not needed any more is
kept for the next. The extensions come from installed packages: nothing is downloaded.
"""

import ctypes
import importlib.util
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import duckdb

from im_resources.catalog_locks import OPTIONS, CatalogLocks, own_name
from im_resources.lake_address import NAME, LakeAddress
from im_resources.lake_faults import fault_of
from im_resources.tables import WarehouseError, text_literal

EXTENSIONS = ("ducklake", "postgres_scanner")
KEPT = 4  # to read and to write, and two snapshots that were asked for last
MISSING = "creating a new DuckLake is explicitly disabled"  # DuckLake's words: there is none yet
# DuckDB is of no use any more after these: a fault of its own, met on its way or earlier.
BROKEN = (duckdb.InternalException, duckdb.FatalException)
OFFLINE = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
# Commits take turns (`Lake`), so that whoever finds another's before its own repeats it once, at
# once; DuckLake by itself would wait 0.1 s.
SETTINGS = "SET ducklake_retry_wait_ms = 5; SET pg_pool_max_connections = 16"


Mode = Literal["read", "write"] | int


class NoLakeError(WarehouseError):
    """There is no lake at the address yet; the first write makes it."""


class Engine:
    """One DuckDB with one lake attached, to write, to read, or to read as of a snapshot.

    Used by one thread at a time: DuckLake's transactions disturb each other in one DuckDB.
    """

    def __init__(
        self,
        address: LakeAddress,
        config: Mapping[str, Any],
        mode: "Mode",
        make: bool,
    ) -> None:
        """Attach the lake.

        Args:
            config: DuckDB options.
            mode: "write"; "read", or the snapshot to read as of: no statement can write then.
            make: make the lake where there is none; one process at a time.

        Raises:
            NoLakeError: there is none.
            WarehouseError: the packages or the credentials are not there.
            duckdb.Error: it cannot be attached.
        """
        self.address, self._mode = address, mode
        self.current_until = 0.0  # the version of its schema was found to be today's
        # Postgres keeps 63 bytes of it. By this name its sessions are told from all others.
        self.session = f"{own_name()[:50]} {uuid.uuid4().hex[:12]}"
        self._config = dict(config)
        self._claims: CatalogLocks | None = None
        self._duckdb = opened(self._config, address.data)
        try:
            self._duckdb.execute(self._attach(make))
        except duckdb.InvalidInputException as error:
            if MISSING not in str(error):
                raise
            self._spare()
            raise NoLakeError(f"there is no lake at {address} yet") from None

    def suits(self, address: LakeAddress, config: Mapping[str, Any], mode: "Mode") -> bool:
        """Whether it was made for these."""
        return (self.address, self._config, self._mode) == (address, dict(config), mode)

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the lake; what is not committed at its end is undone."""
        cursor = self._duckdb.cursor()
        try:
            cursor.execute(f"SET enable_progress_bar = false; USE {NAME}")
            yield cursor
        except BROKEN:
            _leak(cursor, self._duckdb)  # to end such a one ends the process
            raise
        except BaseException:
            with suppress(duckdb.Error):
                cursor.close()
            raise
        with suppress(duckdb.Error):
            cursor.close()

    @contextmanager
    def claims(self) -> Iterator[CatalogLocks]:
        """Locks of the catalog, freed at the end. Raises psycopg2.Error as `CatalogLocks` does."""
        mine = self._claims or CatalogLocks(self.address.catalog, self.session)
        self._claims = None
        try:
            yield mine
            mine.free()
        except BaseException:
            mine.close()
            raise
        self._claims = mine

    def retire(self) -> None:
        """Give up the lake and the locks, and keep the DuckDB."""
        if self._claims is not None:
            self._claims.close()
        with suppress(duckdb.Error):
            self._duckdb.execute(f"DETACH {NAME}")
            self._spare()

    def _spare(self) -> None:
        with _lock:
            _spare.append((self._config, _store(self.address.data), self._duckdb))
            del _spare[:-KEPT]

    def leak(self) -> None:
        """Never end it, not even with the process: a child would sign off its parent's sessions."""
        _leak(self._duckdb, self._claims)

    def _attach(self, make: bool) -> str:
        options = {**OPTIONS, "application_name": self.session.replace(" ", "%20")}
        separator = "&" if "?" in self.address.catalog else "?"
        query = "&".join(f"{name}={value}" for name, value in options.items())
        catalog = text_literal(f"ducklake:postgres:{self.address.catalog}{separator}{query}")
        how = [
            f"DATA_PATH {text_literal(self.address.folder)}",
            f"METADATA_SCHEMA {text_literal(self.address.schema)}",
            f"CREATE_IF_NOT_EXISTS {str(make).lower()}",
            # Few rows would be kept in the catalog. There they lose their row ids, and so their
            # order, when the table gets a column and more rows at once (DuckLake 1.0 of DuckDB
            # 1.5.5; test_lake.py fails where this is left out).
            "DATA_INLINING_ROW_LIMIT 0",
        ]
        if self._mode != "write":
            how.append("READ_ONLY")
        if isinstance(self._mode, int):
            how.append(f"SNAPSHOT_VERSION {self._mode}")
        return f"ATTACH {catalog} AS {NAME} ({', '.join(how)})"


def opened(config: dict[str, Any], data: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB with the extensions and the way to the store of ``data``. Raises as `Engine`."""
    with _lock:
        for kept in _spare:
            if kept[:2] == (config, _store(data)):
                _spare.remove(kept)
                return kept[2]
    beside = Path(tempfile.gettempdir()) / f"im-lake-{os.getpid()}.tmp"
    made = duckdb.connect(config={"temp_directory": str(beside), **OFFLINE, **config})
    try:
        for extension in EXTENSIONS:
            load(made, extension)
        made.execute(SETTINGS)
        open_store(made, data)
    except BaseException:
        made.close()
        raise
    return made


def _store(data: str) -> tuple[str | None, ...]:
    """What a DuckDB has been given the way to; empty for folders."""
    if "://" not in data:
        return ()
    return (data, *(os.environ.get(name) for name in (*KEYS, *ENDPOINTS)))


def load(connection: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load an extension of DuckDB from its package. Raises WarehouseError where it is not there."""
    connection.execute(f"LOAD {text_literal(str(extension_file(extension)))}")


def extension_file(extension: str) -> Path:
    """The file of a DuckDB extension in its installed package.

    Raises WarehouseError: it is not installed, or for another DuckDB.
    """
    spec = importlib.util.find_spec(f"duckdb_extension_{extension}")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        for file in Path(folder).rglob(f"v{duckdb.__version__}/*.duckdb_extension"):
            return file
    raise WarehouseError(
        f"a lake needs the package duckdb_extension_{extension} for DuckDB {duckdb.__version__}: "
        "install the extra `cluster` (pip install -e '.[cluster]')"
    )


def open_store(connection: duckdb.DuckDBPyConnection, data: str) -> None:
    """Give the connection what it needs for the store at ``data``, from the environment.

    Nothing is written anywhere: a secret of DuckDB's is in memory unless it is made PERSISTENT.

    Raises WarehouseError: a variable is missing, or there is no way to such a store.
    """
    kind, found, _ = data.partition("://")
    if not found:
        return
    if kind in ("gs", "gcs") and not os.environ.get("AWS_ACCESS_KEY_ID"):
        import gcsfs

        connection.register_filesystem(gcsfs.GCSFileSystem())
        return
    if kind not in ("s3", "gs", "gcs"):
        raise WarehouseError(
            f"warehouse.data: {data}: a lake's files can be in s3://…, gs://… or a folder"
        )
    missing = [name for name in KEYS if not os.environ.get(name)]
    if missing:
        raise WarehouseError(
            f"warehouse.data: {data} needs the environment variable "
            f"{' and '.join(missing)}, in every process of the platform"
        )
    load(connection, "httpfs")
    statement, values = _secret("gcs" if kind != "s3" else "s3")
    connection.execute(statement, values)


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def _secret(kind: str) -> tuple[str, dict[str, str]]:
    """A statement and what it binds, so that no error can quote a secret."""
    environ = os.environ
    values = {"KEY_ID": environ[KEYS[0]], "SECRET": environ[KEYS[1]]}
    if token := environ.get("AWS_SESSION_TOKEN"):
        values["SESSION_TOKEN"] = token
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        values["REGION"] = region
    plain = ""
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), None)
    if endpoint:  # a store of one's own, which knows buckets by the path
        scheme, found, host = endpoint.rstrip("/").partition("://")
        values["ENDPOINT"] = host if found else endpoint
        plain = f", URL_STYLE 'path', USE_SSL {str(scheme != 'http').lower()}"
    bound = ", ".join(f"{name} ${name}" for name in values)
    return f"CREATE SECRET store (TYPE {kind}, {bound}{plain})", values


_idle: list[Engine] = []  # the one used last comes first
_spare: list[tuple[dict[str, Any], tuple[str | None, ...], duckdb.DuckDBPyConnection]] = []
_lock = threading.Lock()


@contextmanager
def engine(
    address: LakeAddress, config: Mapping[str, Any], mode: Mode, make: bool = False
) -> Iterator[Engine]:
    """An engine for the lake, for one thread; kept for the next use, unless it is lost in this one.

    Raises as `Engine`.
    """
    mine = _taken(address, config, mode) or Engine(address, config, mode, make)
    try:
        yield mine
    except Exception as error:
        fault = fault_of(error, address)
        if not isinstance(error, BROKEN) and (fault is None or fault.kind != "catalog away"):
            _kept(mine)
        raise
    _kept(mine)  # but for one that was interrupted, anywhere


def _taken(address: LakeAddress, config: Mapping[str, Any], mode: Mode) -> Engine | None:
    with _lock:
        found = next((one for one in _idle if one.suits(address, config, mode)), None)
        if found is not None:
            _idle.remove(found)
        return found


def _kept(mine: Engine) -> None:
    with _lock:
        _idle.insert(0, mine)
        superfluous, _idle[KEPT:] = _idle[KEPT:], []
    for other in superfluous:
        other.retire()


def _leak(*held: object) -> None:
    """Keep objects for ever, over the end of the interpreter."""
    for one in held:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _forked() -> None:
    """A child leaves alone what it inherits: the threads are gone, the sessions its parent's."""
    for inherited in _idle:
        inherited.leak()
    _leak(*(bare for *_, bare in _spare))
    _idle.clear()
    _spare.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forked)
