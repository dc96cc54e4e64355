"""Room on disk for what grows with a catalogue and is gone afterwards."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from enrich.errors import IOFailure

_CACHE_KIB = 32 << 10


@contextmanager
def scratch(what: str) -> Iterator[sqlite3.Connection]:
    """A database that outgrows memory into a file without a name, which is gone when the block ends.

    Raises `IOFailure`, which says that it cannot do `what`, when there is no room for it.
    """
    with closing(sqlite3.connect("")) as connection:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        try:
            yield connection
        except sqlite3.OperationalError as error:
            raise IOFailure(f"cannot {what}: {error}: make room for temporary files, or set SQLITE_TMPDIR") from error
