"""Who does a piece of work, so that no two do the same: of one machine, or of several.

On one machine a claim is a lock file (``published.claimed``). Where several train, it is that and
a lock of the catalog's Postgres (``catalog_locks.py``): the file still tells this machine what its
live processes are writing.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from im_resources.catalog_locks import catalog_lock
from im_resources.published import claimed
from im_resources.remote.faults import LONGEST_WAIT, without_secrets

PATIENCE = 120.0  # seconds that a catalog may take to start again
log = logging.getLogger(__name__)


class ClaimError(OSError):
    """The catalog that holds the claims cannot be reached; says where, why and what to do."""


class Claims(Protocol):
    """Claims on trials."""

    def claimed(
        self, trial: str, wait: Callable[[], object] | None
    ) -> AbstractContextManager[bool]:
        """Hold the claim on a trial; True once it is held.

        Args:
            wait: called again and again while another holds it, and may end that by raising; None:
                do not wait, False at once.
        """


@dataclass(frozen=True)
class FileClaims:
    """Claims that the processes of this machine see: lock files in ``folder``."""

    folder: Path

    def claimed(
        self, trial: str, wait: Callable[[], object] | None
    ) -> AbstractContextManager[bool]:
        """See `Claims`."""
        return claimed(self.folder / f".lock-{trial}", wait)


@dataclass(frozen=True)
class CatalogClaims:
    """Claims that all machines see: locks in the Postgres at ``catalog``, for one ``study``.

    When the database dies, so do the claims that it holds, while the work goes on: another machine
    may then do the same work once more. It publishes the same content, or finds what is there.
    """

    folder: Path
    catalog: str
    study: str
    patience: float = PATIENCE

    @contextmanager
    def claimed(self, trial: str, wait: Callable[[], object] | None) -> Iterator[bool]:
        """See `Claims`.

        Raises ClaimError when the database cannot be reached, for ``patience`` seconds.
        """
        with FileClaims(self.folder).claimed(trial, wait) as here, ExitStack() as held:
            yield here and self._enter(held, f"{self.study}/trial/{trial}", wait)

    def _enter(self, held: ExitStack, name: str, wait: Callable[[], object] | None) -> bool:
        import psycopg2

        told = False

        def waiting(holder: Callable[[], str]) -> None:
            nonlocal told
            if not told:
                log.warning("waiting for %s: %s is at it", name, holder())
            told = True
            if wait is not None:
                wait()

        started, pause = time.monotonic(), 0.2
        while True:
            try:
                lock = catalog_lock(self.catalog, name, None if wait is None else waiting)
                return held.enter_context(lock)
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                said = without_secrets(" ".join(str(error).split()))
                refused = "authentication failed" in said or "does not exist" in said
                took = time.monotonic() - started
                if refused or took + pause > self.patience:
                    raise ClaimError(
                        f"cannot claim {name} in the catalog {self.catalog}: {said}; see whether "
                        "Postgres is up and $PGPASSWORD is its user's, and run again: what is "
                        "finished is not lost"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT)
