"""The file of a memory: made whole, opened, told from any other file, and its failures explained in one line.

One SQLite file, of which every row that a text depends on bears a digest of its values: SQLite notices a page that
makes no sense, never a letter that turned into another.
"""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path

import orjson
import xxhash

from enrich import durable
from enrich.errors import Busy, EnrichError, IOFailure, NoInput, SettingsError

_APPLICATION_ID = 0x656E7263  # "enrc"; `file` and we tell a memory from any other database by it
_FORMAT = 5
_PAGE_BYTES = 4096
_CACHE_KIB = 128 * 1024
_BUSY_SECONDS = 10.0

_SCHEMA = f"""
PRAGMA page_size = {_PAGE_BYTES};
PRAGMA journal_mode = MEMORY;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
CREATE TABLE run (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, recipe TEXT NOT NULL, withdrawn INTEGER NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE text (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, attempt INTEGER NOT NULL,
    completion TEXT NOT NULL, ended TEXT NOT NULL, cut INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES run,
    digest BLOB NOT NULL, UNIQUE (key, attempt)
);
CREATE TABLE verdict (
    text_id INTEGER PRIMARY KEY REFERENCES text ON DELETE CASCADE,
    policy TEXT NOT NULL, text TEXT, chars INTEGER, flags TEXT NOT NULL, score INTEGER, action TEXT NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE review (
    id INTEGER PRIMARY KEY, product_key BLOB NOT NULL UNIQUE, verdict TEXT NOT NULL, text TEXT, digest BLOB NOT NULL
);
CREATE TABLE shape (name TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL);
"""

# Of each table what its rows' digests are over, in the order of `digest_of`.
DIGESTED = {
    "run": "name, recipe, withdrawn",
    "text": "key, attempt, completion, ended, cut, run",
    "verdict": "text_id, policy, text, chars, flags, score, action",
    "review": "product_key, verdict, text",
    "shape": "name, value",
}


def check_place(path: Path, read_only: bool) -> None:
    """Raises unless a memory may be at `path`, or may be made there."""
    # Never opens the file: closing a descriptor of our own would drop the locks that SQLite holds on it.
    with plain_errors(path):
        try:
            there = path.lstat()
        except FileNotFoundError:
            if read_only:
                raise NoInput(f"{path}: no such memory: run the catalogue once") from None
            if size_of(log_of(path)):
                raise IOFailure(
                    f"{log_of(path)}: the memory of this log is gone: put it back, or delete the log"
                ) from None
            return
    if not stat.S_ISREG(there.st_mode):
        raise SettingsError(f"{path}: not a regular file: a memory is never reached through a link, remove it")
    # SQLite takes a stump for a new database and fills up a cut last page with zeros. A page may be cut for
    # good reason while the log still holds it: the disk was full when the log was moved into the file.
    if there.st_size < _PAGE_BYTES or (there.st_size % _PAGE_BYTES and not size_of(log_of(path))):
        raise damaged(path, "cut short")


def create(path: Path) -> None:
    """A new memory appears whole under its name, so that an empty file there is always damage."""
    with plain_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replaced(path) as fresh, closing(sqlite3.connect(fresh)) as connection:
            connection.executescript(_SCHEMA)


def connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """A connection to the memory at `path`. Raises `SettingsError` when it is another file than a memory of ours."""
    uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}"
    with plain_errors(path):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        # A text that is no UTF-8 any more is told by its digest, not by an exception of its reader.
        connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
        try:
            # Before anything is configured: that would already write into a stranger's database.
            _check_identity(path, connection)
            _configure(path, connection, read_only)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_identity(path: Path, connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        raise SettingsError(f"{path}: a database of another program: name another state folder")
    if version != _FORMAT:
        raise SettingsError(
            f"{path}: format {version}, and this version reads {_FORMAT}: use the version that wrote it"
        )
    if _tables(connection) != _expected_tables():
        raise damaged(path, "its tables are not those of a memory")


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()


@cache
def _expected_tables() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _tables(connection)


def _configure(path: Path, connection: sqlite3.Connection, read_only: bool) -> None:
    connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
    if not read_only:
        # When the disk refuses, SQLite stays in another mode and says nothing.
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise IOFailure(f"{path}: cannot begin its log: check space, and keep the state on a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A private empty file that takes the name `path`, durably, once the block has filled it."""
    temp = durable.temporary(path)
    durable.discard(temp)
    temp.touch(mode=0o600, exist_ok=False)
    try:
        yield temp
        durable.replace(temp, path)
    finally:
        durable.discard(temp)


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """What the disk or another program did comes out as one line; what only a bug can do comes out as it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        explained = _explain(path, error)
        if explained is None:
            raise
        raise explained from error
    except UnicodeDecodeError as error:
        # SQLite quotes what it stumbled over.
        raise damaged(path, "a name in it is no text") from error
    except OSError as error:
        raise IOFailure(f"{path}: {error.strerror}: mend it and run again, what was committed is kept") from error


def _explain(path: Path, error: sqlite3.DatabaseError) -> EnrichError | None:
    # The low byte is the primary code; the rest says where in SQLite it arose. Python's own errors have none.
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy(f"{path}: another program keeps it locked: wait for it to end and run again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case (
            sqlite3.SQLITE_FULL
            | sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_PERM
        ):
            return IOFailure(f"{path}: {error}: check space and permissions and run again, what was committed is kept")
        case _:
            return None


def damaged(path: Path, why: str) -> IOFailure:
    """The error for a memory that cannot be trusted."""
    return IOFailure(
        f"{path}: damaged ({why}): move it and its -wal away, then put an export in its place or "
        "`enrich memory rebuild OUTPUT` from what was published"
    )


def log_of(path: Path) -> Path:
    """SQLite's log of the memory at `path`."""
    return path.with_name(f"{path.name}-wal")


def size_of(path: Path) -> int:
    """In bytes; 0 when there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def digest_of(*values: bytes | str | int | None) -> bytes:
    """8 bytes, XXH3 over the JSON of a row's values as SQLite gives them back. Tells damage, not an attacker."""
    return xxhash.xxh3_64_digest(orjson.dumps(values, default=bytes.hex))
