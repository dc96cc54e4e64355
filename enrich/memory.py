"""The memory of a state folder: what the engine wrote, what quality made of it, what a person decided.

One SQLite file, and the only checkpoint there is: when `add` returns, its batch survives a kill or a power
cut, and a batch that was cut short left nothing. It knows keys as bytes and texts as strings; what a key
stands for, why a text was judged so and who may write tonight (`enrich.state`) is not its business.

A damaged file, a full disk and a failing one are `IOFailure`; a file that is not a memory, or that a newer
version wrote, is `SettingsError`; a file that another program keeps locked is `Busy`.
"""

import json
import sqlite3
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enrich import durable
from enrich.errors import Busy, EnrichError, IOFailure, NoInput, SettingsError, UsageError

_APPLICATION_ID = 0x656E7263  # "enrc"; `file` and we tell a memory from any other database by it
_FORMAT = 3
_PAGE_BYTES = 4096
_CACHE_KIB = 128 * 1024
_BUSY_SECONDS = 10.0
_KEYS_A_QUERY = 512

_TABLES = {"run", "text", "verdict", "review", "shape"}
_SCHEMA = f"""
PRAGMA page_size = {_PAGE_BYTES};
PRAGMA journal_mode = MEMORY;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
CREATE TABLE run (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, recipe TEXT NOT NULL, withdrawn INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE text (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, attempt INTEGER NOT NULL,
    completion TEXT NOT NULL, ended TEXT NOT NULL, cut INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES run,
    UNIQUE (key, attempt)
);
CREATE TABLE verdict (
    text_id INTEGER PRIMARY KEY REFERENCES text ON DELETE CASCADE,
    policy TEXT NOT NULL, text TEXT, flags TEXT NOT NULL, score INTEGER, action TEXT NOT NULL
);
CREATE TABLE review (
    id INTEGER PRIMARY KEY, product_key BLOB NOT NULL UNIQUE, verdict TEXT NOT NULL, text TEXT
);
CREATE TABLE shape (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_ADD_TEXT = """
INSERT INTO text (key, attempt, completion, ended, cut, run) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key, attempt) DO NOTHING RETURNING id
"""
_ADD_VERDICT = "INSERT OR REPLACE INTO verdict (text_id, policy, text, flags, score, action) VALUES (?, ?, ?, ?, ?, ?)"
_ADD_REVIEW = """
INSERT INTO review (product_key, verdict, text) VALUES (?, ?, ?)
ON CONFLICT (product_key) DO UPDATE SET verdict = excluded.verdict, text = excluded.text
"""
_RECALL = """
SELECT
    t.key, t.id, t.attempt, t.completion, t.ended, t.cut, t.run, r.withdrawn, v.text, v.flags, v.score, v.action
FROM text AS t JOIN run AS r ON r.id = t.run LEFT JOIN verdict AS v ON v.text_id = t.id AND v.policy = ?
WHERE t.key IN
"""
_UNSETTLED = """
SELECT EXISTS (
    SELECT 1 FROM text AS t JOIN run AS r ON r.id = t.run LEFT JOIN verdict AS v ON v.text_id = t.id AND v.policy = ?
    WHERE r.recipe = ? AND NOT r.withdrawn AND t.attempt = ? AND coalesce(v.action, 'retry') = 'retry'
        AND t.ended IN ('eos', 'length')
        AND NOT EXISTS (SELECT 1 FROM text AS later WHERE later.key = t.key AND later.attempt > t.attempt)
)
"""
# The runs of further authors are named after the first one's.
_WITHDRAW = "UPDATE run SET withdrawn = 1 WHERE name = ? OR name GLOB ? || ' *'"
_COUNT_OF_RUN = """
SELECT count(*) FROM text WHERE run IN (SELECT id FROM run WHERE name = ? OR name GLOB ? || ' *')
"""
_PRUNE = """
DELETE FROM text WHERE run NOT IN (SELECT id FROM run WHERE recipe IN (SELECT value FROM json_each(?)))
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `policy` makes of a text: what may be published of it, why not, how good it is, and what becomes of it."""

    policy: str
    action: str
    text: str | None = None
    flags: tuple[str, ...] = ()
    score: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished prompt: its raw completion, and the verdict on it.

    `cut` says that the prompt held only the beginning of its product.
    """

    key: bytes
    attempt: int
    completion: str
    ended: str
    verdict: Verdict
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Remembered:
    """A text of a key, made by the run of that id, which a person may have `withdrawn`. `verdict` is None while the
    policy asked for has not seen it."""

    text_id: int
    attempt: int
    completion: str
    ended: str
    cut: bool
    run: int
    verdict: Verdict | None
    withdrawn: bool = False

    @property
    def judged(self) -> Verdict:
        """The verdict, where there must be one."""
        if self.verdict is None:
            raise ValueError(f"text {self.text_id}: not judged yet")
        return self.verdict


@dataclass(frozen=True, slots=True)
class Review:
    """What a person decided about a product, and the text they chose, if they chose one."""

    verdict: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """How much a memory holds; `ended` counts the texts by why they end, `file_bytes` includes the log."""

    texts: int
    ended: dict[str, int]
    verdicts: int
    reviews: int
    runs: int
    file_bytes: int


class Memory:
    """An open memory. Belongs to the thread that opened it; one writer at a time, any number of readers."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, read_only: bool = False) -> Iterator["Memory"]:
        """Opens the memory at `path`, making it (0600, in a folder 0700) when there is none.

        Raises `NoInput` when it is to be read only and does not exist, else as the module says.
        """
        path = path.absolute()
        _check_place(path, read_only)
        if not path.exists():
            _create(path)
        with closing(_connect(path, read_only)) as connection:
            yield cls(path, connection)

    def begin_run(self, name: str, recipe: str) -> int:
        """The id of the run `name`, whose texts are all written by `recipe`; the same again on a resume.

        Raises `SettingsError` when a run of that name used another recipe.
        """
        with self._transaction():
            self._connection.execute(
                "INSERT INTO run (name, recipe) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, recipe)
            )
            run_id, known = self._connection.execute("SELECT id, recipe FROM run WHERE name = ?", (name,)).fetchone()
        if known != recipe:
            raise SettingsError(f"{self._path}: run {name} began with other settings or another model: begin a new run")
        return int(run_id)

    def add(self, run_id: int, entries: Sequence[Entry]) -> None:
        """Commits a batch, whole or not at all; durable when this returns.

        An attempt that is already there keeps its text and verdict.
        """
        with self._transaction():
            for entry in sorted(entries, key=lambda entry: (entry.key, entry.attempt)):
                row = (entry.key, entry.attempt, entry.completion, entry.ended, entry.cut, run_id)
                for (text_id,) in self._connection.execute(_ADD_TEXT, row).fetchall():
                    self._connection.execute(_ADD_VERDICT, (text_id, *_columns(entry.verdict)))

    def add_verdicts(self, verdicts: Mapping[int, Verdict]) -> None:
        """Replaces the verdicts on remembered texts, by their ids, all or none; durable when this returns."""
        with self._transaction():
            self._connection.executemany(
                _ADD_VERDICT, ((text_id, *_columns(verdicts[text_id])) for text_id in sorted(verdicts))
            )

    def add_reviews(self, reviews: Mapping[bytes, Review]) -> None:
        """Keeps what a person decided, by product key, all or none; a later decision replaces the earlier."""
        with self._transaction():
            self._connection.executemany(
                _ADD_REVIEW, ((key, reviews[key].verdict, reviews[key].text) for key in sorted(reviews))
            )

    def known(self, keys: Collection[bytes]) -> set[bytes]:
        """Those of `keys` that have a text, however it ended."""
        return {key for (key,) in self._look_up("SELECT key FROM text WHERE attempt = 0 AND key IN", keys)}

    def recall(self, keys: Collection[bytes], policy: str) -> dict[bytes, list[Remembered]]:
        """The texts of `keys` in the order of their attempts, with the verdicts of `policy`; without unknown keys."""
        found: dict[bytes, list[Remembered]] = {}
        for key, text_id, attempt, completion, ended, cut, run, withdrawn, text, flags, score, action in self._look_up(
            _RECALL, keys, policy
        ):
            verdict = Verdict(policy, action, text, _flags_from_json(flags), score) if action else None
            found.setdefault(key, []).append(
                Remembered(text_id, attempt, completion, ended, bool(cut), run, verdict, bool(withdrawn))
            )
        for texts in found.values():
            texts.sort(key=lambda text: text.attempt)
        return found

    def is_unsettled(self, recipe: str, policy: str, attempt: int) -> bool:
        """Whether a text that `recipe` wrote at that attempt, and at no later one, asks for another attempt.

        One that `policy` has not judged yet may.
        """
        with _plain_errors(self._path):
            (found,) = self._connection.execute(_UNSETTLED, (policy, recipe, attempt)).fetchone()
        return bool(found)

    def reviews(self, product_keys: Collection[bytes]) -> dict[bytes, Review]:
        """The decisions on `product_keys`; products that nobody reviewed are left out."""
        query = "SELECT product_key, verdict, text FROM review WHERE product_key IN"
        return {key: Review(verdict, text) for key, verdict, text in self._look_up(query, product_keys)}

    def shape(self, name: str) -> str | None:
        """The engine's fixed shape stored under `name`, or None."""
        with _plain_errors(self._path):
            row = self._connection.execute("SELECT value FROM shape WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_shape(self, name: str, value: str) -> None:
        """Stores a shape, in place of the former one; durable when this returns."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO shape (name, value) VALUES (?, ?)", (name, value))

    def stats(self) -> Stats:
        """Counts everything; reads the whole file once."""
        with _plain_errors(self._path):
            ended = self._connection.execute(
                "SELECT ended, count(*) FROM text GROUP BY ended ORDER BY ended"
            ).fetchall()
            verdicts, reviews, runs = self._connection.execute(
                "SELECT (SELECT count(*) FROM verdict), (SELECT count(*) FROM review), (SELECT count(*) FROM run)"
            ).fetchone()
            file_bytes = self._path.stat().st_size + _size(_log_of(self._path))
        return Stats(sum(count for _, count in ended), dict(ended), verdicts, reviews, runs, file_bytes)

    def export(self, path: Path) -> None:
        """Writes a consistent, compact copy (0600) to `path`, which holds its old content or the whole copy.

        A writer may go on meanwhile. Raises `UsageError` when `path` is a memory in use.
        """
        path = path.absolute()
        # SQLite would replay a log found beside the copy into it, and so mix two memories.
        if path == self._path or _size(_log_of(path)):
            raise UsageError(f"{path}: a memory in use: export to another name")
        with _plain_errors(path), _replaced(path) as copy:
            self._connection.execute("VACUUM INTO ?", (str(copy),))

    def withdraw(self, name: str) -> int:
        """Marks the texts of the run `name`, by whichever author, as withdrawn, and says how many there are."""
        with self._transaction():
            self._connection.execute(_WITHDRAW, (name, name))
            (count,) = self._connection.execute(_COUNT_OF_RUN, (name, name)).fetchone()
        return int(count)

    def prune(self, recipes: Collection[str]) -> int:
        """Drops the texts that runs of any other recipe than these wrote, gives their room back, and says how many.

        Reviews, shapes and the names of the runs stay. Needs free room of the size of what is left.
        """
        with self._transaction():
            dropped = self._connection.execute(_PRUNE, (json.dumps(list(recipes)),)).rowcount
        with _plain_errors(self._path):
            self._connection.execute("VACUUM")
        return dropped

    def _look_up(self, query: str, keys: Collection[bytes], *before: str) -> Iterator[tuple[Any, ...]]:
        # Sorted, so that neighbours in the index are read together.
        ordered = sorted(set(keys))
        for start in range(0, len(ordered), _KEYS_A_QUERY):
            chunk = ordered[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(chunk))
            with _plain_errors(self._path):
                rows = self._connection.execute(f"{query} ({marks})", (*before, *chunk)).fetchall()
            yield from rows

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _plain_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # On some failures SQLite has already rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _check_place(path: Path, read_only: bool) -> None:
    # Never opens the file: closing a descriptor of our own would drop the locks that SQLite holds on it.
    with _plain_errors(path):
        try:
            there = path.lstat()
        except FileNotFoundError:
            if read_only:
                raise NoInput(f"{path}: no such memory: run the catalogue once") from None
            if _size(_log_of(path)):
                raise IOFailure(
                    f"{_log_of(path)}: the memory of this log is gone: put it back, or delete the log"
                ) from None
            return
    if not stat.S_ISREG(there.st_mode):
        raise SettingsError(f"{path}: not a regular file: a memory is never reached through a link, remove it")
    # SQLite takes a stump for a new database and fills up a cut last page with zeros. A page may be cut for
    # good reason while the log still holds it: the disk was full when the log was moved into the file.
    if there.st_size < _PAGE_BYTES or (there.st_size % _PAGE_BYTES and not _size(_log_of(path))):
        raise _damaged(path, "cut short")


def _create(path: Path) -> None:
    """A new memory appears whole under its name, so that an empty file there is always damage."""
    with _plain_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _replaced(path) as fresh, closing(sqlite3.connect(fresh)) as connection:
            connection.executescript(_SCHEMA)


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}"
    with _plain_errors(path):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        try:
            # Before anything is configured: that would already write into a stranger's database.
            _check_identity(path, connection)
            _configure(connection, read_only)
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
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= _TABLES:
        raise _damaged(path, f"no table {min(_TABLES - tables)}")


def _configure(connection: sqlite3.Connection, read_only: bool) -> None:
    connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
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
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        explained = _explain(path, error)
        if explained is None:
            raise
        raise explained from error
    except OSError as error:
        raise IOFailure(f"{path}: {error.strerror}: mend it and run again, what was committed is kept") from error


def _explain(path: Path, error: sqlite3.DatabaseError) -> EnrichError | None:
    """One line for what the disk or another program did; None for what only a bug of ours can do."""
    # The low byte is the primary code; the rest says where in SQLite it arose. Python's own errors have none.
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy(f"{path}: another program keeps it locked: wait for it to end and run again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, str(error))
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


def _damaged(path: Path, why: str) -> IOFailure:
    return IOFailure(f"{path}: damaged ({why}): put an export back in its place, or move it and its -wal away")


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _columns(verdict: Verdict) -> tuple[Any, ...]:
    return (verdict.policy, verdict.text, _flags_to_json(verdict.flags), verdict.score, verdict.action)


def _flags_to_json(flags: Sequence[str]) -> str:
    return json.dumps(list(flags), ensure_ascii=False)


def _flags_from_json(flags: str | None) -> tuple[str, ...]:
    return tuple(json.loads(flags)) if flags else ()
