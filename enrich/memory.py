"""The memory of a state folder: what the engine wrote, what quality made of it, what a person decided.

One SQLite file, and the only checkpoint there is: when `add` returns, its batch survives a kill or a power
cut, and a batch that was cut short left nothing. It knows keys as bytes and texts as strings; what a key
stands for, why a text was judged so and who may write tonight (`enrich.state`) is not its business.

A damaged file, a full disk and a failing one are `IOFailure`; a file that is not a memory, or that a newer
version wrote, is `SettingsError`; a file that another program keeps locked is `Busy`.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from enrich.errors import SettingsError, UsageError
from enrich.memory_file import (
    DIGESTED,
    check_place,
    connect,
    create,
    damaged,
    digest_of,
    log_of,
    plain_errors,
    replaced,
    size_of,
)

_KEYS_A_QUERY = 512

_ADD_TEXT = """
INSERT INTO text (id, key, attempt, completion, ended, cut, run, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
# Most texts are their completion, or its beginning: then no more than the number of its characters is kept.
_ADD_VERDICT = """
INSERT OR REPLACE INTO verdict (text_id, policy, text, chars, flags, score, action, digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_REVIEW = """
INSERT INTO review (product_key, verdict, text, digest) VALUES (?, ?, ?, ?)
ON CONFLICT (product_key) DO UPDATE SET verdict = excluded.verdict, text = excluded.text, digest = excluded.digest
"""
_RECALL = """
SELECT
    t.key, t.attempt, t.completion, t.ended, t.cut, t.run, t.digest, t.id, r.withdrawn,
    v.policy, v.text, v.chars, v.flags, v.score, v.action, v.digest
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
_COMPLETIONS = "SELECT id, completion FROM text WHERE id IN"
_REVIEWS = "SELECT product_key, verdict, text, digest FROM review WHERE product_key IN"
# The runs of further authors are named after the first one's.
_RUNS_NAMED = "SELECT id, name, recipe FROM run WHERE name = ? OR name GLOB ? || ' *'"
_PRUNE = """
DELETE FROM text WHERE run NOT IN (SELECT id FROM run WHERE recipe IN (SELECT value FROM json_each(?)))
"""


class Verdict(NamedTuple):
    """What `policy` makes of a text: what may be published of it, why not, how good it is, and what becomes of it."""

    policy: str
    action: str
    text: str | None = None
    flags: tuple[str, ...] = ()
    score: int | None = None


class Entry(NamedTuple):
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
        check_place(path, read_only)
        if not path.exists():
            create(path)
        with closing(connect(path, read_only)) as connection:
            memory = cls(path, connection)
            # Whose texts may be used hangs on these few rows, and who recalls a text does not look at them.
            with plain_errors(path):
                memory._check_table("run")
            yield memory
            if not read_only:
                # Closing would do it too, and keep its failure to itself.
                with plain_errors(path):
                    connection.execute("PRAGMA wal_checkpoint")

    def begin_run(self, name: str, recipe: str) -> int:
        """The id of the run `name`, whose texts are all written by `recipe`; the same again on a resume.

        Raises `SettingsError` when a run of that name used another recipe.
        """
        with self._transaction():
            new = (name, recipe, 0)
            self._connection.execute(
                "INSERT INTO run (name, recipe, withdrawn, digest) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*new, digest_of(*new)),
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
            there = set(self._look_up("SELECT key, attempt FROM text WHERE key IN", {entry.key for entry in entries}))
            new: dict[tuple[bytes, int], Entry] = {}
            for entry in entries:
                if (entry.key, entry.attempt) not in there:
                    new.setdefault((entry.key, entry.attempt), entry)
            (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM text").fetchone()
            # In the order of the index, so that neighbours are written together.
            numbered = list(enumerate((new[which] for which in sorted(new)), start=last + 1))
            self._connection.executemany(_ADD_TEXT, (_text_row(text_id, each, run_id) for text_id, each in numbered))
            self._connection.executemany(
                _ADD_VERDICT, (_verdict_row(text_id, each.verdict, each.completion) for text_id, each in numbered)
            )

    def add_verdicts(self, verdicts: Mapping[int, Verdict]) -> None:
        """Replaces the verdicts on remembered texts, by their ids, all or none; durable when this returns."""
        with self._transaction():
            completions = dict(self._look_up(_COMPLETIONS, verdicts.keys()))
            self._connection.executemany(
                _ADD_VERDICT, (_verdict_row(each, verdicts[each], completions[each]) for each in sorted(verdicts))
            )

    def add_reviews(self, reviews: Mapping[bytes, Review]) -> None:
        """Keeps what a person decided, by product key, all or none; a later decision replaces the earlier."""
        rows = ((key, reviews[key].verdict, reviews[key].text) for key in sorted(reviews))
        with self._transaction():
            self._connection.executemany(_ADD_REVIEW, ((*row, digest_of(*row)) for row in rows))

    def known(self, keys: Collection[bytes]) -> set[bytes]:
        """Those of `keys` that have a text, however it ended."""
        return {key for (key,) in self._look_up("SELECT key FROM text WHERE attempt = 0 AND key IN", keys)}

    def recall(self, keys: Collection[bytes], policy: str) -> dict[bytes, list[Remembered]]:
        """The texts of `keys` in the order of their attempts, with the verdicts of `policy`; without unknown keys."""
        found: dict[bytes, list[Remembered]] = {}
        for row in self._look_up(_RECALL, keys, policy):
            (*text_row, text_digest, text_id, withdrawn), (*verdict_row, verdict_digest) = row[:9], row[9:]
            self._check_digest("text", text_row, text_digest)
            verdict = None
            if verdict_digest is not None:
                self._check_digest("verdict", (text_id, *verdict_row), verdict_digest)
                verdict = _verdict_of(text_row[2], *verdict_row)
            key, attempt, completion, ended, cut, run = text_row
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
        with plain_errors(self._path):
            (found,) = self._connection.execute(_UNSETTLED, (policy, recipe, attempt)).fetchone()
        return bool(found)

    def reviews(self, product_keys: Collection[bytes]) -> dict[bytes, Review]:
        """The decisions on `product_keys`; products that nobody reviewed are left out."""
        found = {}
        for *row, digest in self._look_up(_REVIEWS, product_keys):
            self._check_digest("review", row, digest)
            key, verdict, text = row
            found[key] = Review(verdict, text)
        return found

    @property
    def has_reviews(self) -> bool:
        """Whether a person decided anything at all: most memories need no key of a product looked up."""
        with plain_errors(self._path):
            (found,) = self._connection.execute("SELECT EXISTS (SELECT 1 FROM review)").fetchone()
        return bool(found)

    def shape(self, name: str) -> str | None:
        """The engine's fixed shape stored under `name`, or None."""
        with plain_errors(self._path):
            row = self._connection.execute("SELECT value, digest FROM shape WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        self._check_digest("shape", (name, row[0]), row[1])
        return str(row[0])

    def set_shape(self, name: str, value: str) -> None:
        """Stores a shape, in place of the former one; durable when this returns."""
        with self._transaction():
            row = (name, value, digest_of(name, value))
            self._connection.execute("INSERT OR REPLACE INTO shape (name, value, digest) VALUES (?, ?, ?)", row)

    def stats(self) -> Stats:
        """Counts everything; reads the whole file once."""
        with plain_errors(self._path):
            ended = self._connection.execute(
                "SELECT ended, count(*) FROM text GROUP BY ended ORDER BY ended"
            ).fetchall()
            verdicts, reviews, runs = self._connection.execute(
                "SELECT (SELECT count(*) FROM verdict), (SELECT count(*) FROM review), (SELECT count(*) FROM run)"
            ).fetchone()
            file_bytes = self._path.stat().st_size + size_of(log_of(self._path))
        return Stats(sum(count for _, count in ended), dict(ended), verdicts, reviews, runs, file_bytes)

    def check(self) -> None:
        """Reads all of it: SQLite's own check of every page and reference, and each row against its digest.

        Raises `IOFailure` that says what is damaged.
        """
        with plain_errors(self._path):
            ((integrity,), *_) = self._connection.execute("PRAGMA integrity_check(1)").fetchall()
            if integrity != "ok":
                raise damaged(self._path, integrity)
            if self._connection.execute("PRAGMA foreign_key_check").fetchone():
                raise damaged(self._path, "a row refers to one that is not there")
            for table in DIGESTED:
                self._check_table(table)

    def export(self, path: Path) -> None:
        """Writes a consistent, compact copy (0600) to `path`, which holds its old content or the whole copy.

        A writer may go on meanwhile. Raises `UsageError` when `path` is a memory in use.
        """
        path = path.absolute()
        # SQLite would replay a log found beside the copy into it, and so mix two memories.
        if path == self._path or size_of(log_of(path)):
            raise UsageError(f"{path}: a memory in use: export to another name")
        with plain_errors(path), replaced(path) as copy:
            self._connection.execute("VACUUM INTO ?", (str(copy),))

    def withdraw(self, name: str) -> int:
        """Marks the texts of the run `name`, by whichever author, as withdrawn, and says how many there are."""
        count = 0
        with self._transaction():
            for run_id, *row in self._connection.execute(_RUNS_NAMED, (name, name)).fetchall():
                mark = "UPDATE run SET withdrawn = 1, digest = ? WHERE id = ?"
                self._connection.execute(mark, (digest_of(*row, 1), run_id))
                count += self._connection.execute("SELECT count(*) FROM text WHERE run = ?", (run_id,)).fetchone()[0]
        return count

    def prune(self, recipes: Collection[str]) -> int:
        """Drops the texts that runs of any other recipe than these wrote, gives their room back, and says how many.

        Reviews, shapes and the names of the runs stay. Needs free room of the size of what is left.
        """
        with self._transaction():
            dropped = self._connection.execute(_PRUNE, (json.dumps(list(recipes)),)).rowcount
        with plain_errors(self._path):
            self._connection.execute("VACUUM")
        return dropped

    def _look_up(self, query: str, keys: Collection[Any], *before: str) -> Iterator[tuple[Any, ...]]:
        # Sorted, so that neighbours in the index are read together.
        ordered = sorted(set(keys))
        for start in range(0, len(ordered), _KEYS_A_QUERY):
            chunk = ordered[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(chunk))
            with plain_errors(self._path):
                rows = self._connection.execute(f"{query} ({marks})", (*before, *chunk)).fetchall()
            yield from rows

    def _check_table(self, table: str) -> None:
        for *row, digest in self._connection.execute(f"SELECT {DIGESTED[table]}, digest FROM {table}"):  # noqa: S608
            self._check_digest(table, row, digest)

    def _check_digest(self, table: str, row: Sequence[Any], digest: bytes) -> None:
        if digest_of(*row) != digest:
            raise damaged(self._path, f"a {table} is not what was written")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with plain_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # On some failures SQLite has already rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _text_row(text_id: int, entry: Entry, run_id: int) -> tuple[Any, ...]:
    row = (entry.key, entry.attempt, entry.completion, entry.ended, int(entry.cut), run_id)
    return (text_id, *row, digest_of(*row))


def _verdict_row(text_id: int, verdict: Verdict, completion: str) -> tuple[Any, ...]:
    flags = json.dumps(verdict.flags, ensure_ascii=False) if verdict.flags else "[]"
    row = (text_id, verdict.policy, *_short(verdict.text, completion), flags, verdict.score, verdict.action)
    return (*row, digest_of(*row))


def _verdict_of(
    completion: str, policy: str, text: str | None, chars: int | None, flags: str, score: int | None, action: str
) -> Verdict:
    if chars is not None:
        text = completion.strip()[:chars]
    return Verdict(policy, action, text, () if flags == "[]" else tuple(json.loads(flags)), score)


def _short(text: str | None, completion: str) -> tuple[str | None, int | None]:
    """A text, or of how many of the completion's characters it is made, the white space before them not counted."""
    if text is not None and completion.strip().startswith(text):
        return None, len(text)
    return text, None
