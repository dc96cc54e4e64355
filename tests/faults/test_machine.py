"""F25: whole runs in any order with kills, damage, edits, neighbours, signals and full disks between and inside them.

Whatever happens, what lies under the output's name is byte for byte what an undisturbed run in a fresh folder makes of
a content that the catalogue had (P2, P3, P5, P7, P12), every row of it is the row of the catalogue with its own text
(P1, P4, P9), and no text that was committed is written again. `FAULTS=full` runs it for much longer.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.faults.limits import CHECKED, PHASES, READ, UNREAD, WRITING
from tests.killing import Nursery
from tests.runs import Row, output_of, texts_in

FULL = os.environ.get("FAULTS") == "full"
# Of each format half.
EXAMPLES, STEPS = (200, 30) if FULL else (8, 10)

KILLED = -signal.SIGKILL
PUBLISHED, CHANGED, FAILED, STOPPED, UNSUITABLE = 0, 65, 74, 75, 78
# How a run may end that finds its state damaged.
REFUSED = (FAILED, UNSUITABLE)
# What befalls runs here. Of these a Parquet catalogue, which has no spool, knows all but the last.
FAULTS = (
    "kill",
    "input changed",
    "second run",
    "lock deleted",
    "signal",
    "full disk",
    "memory damaged",
    "memory refused",
    "spool damaged",
)
# What `frozen` says of a run that ended before the step at which it was to freeze.
ENDED = "ended"

# The echo engine answers with the title; what is shorter is tried once more, and held.
MIN_CHARS = 8
CONFIG = f"[quality]\nmin_chars = {MIN_CHARS}\nretries = 1\n"
# Small, so that what a run remembers comes in several commits.
BATCH_ROWS = 2

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("stock", pa.int64()),
        ("tags", pa.list_(pa.string())),
    ],
    metadata={"owner": "the shop"},
)

_PAGE = 4096

Texts = dict[tuple[bytes, int], tuple[int, str, int]]


# --- the model -------------------------------------------------------------------------------------------------------


def content_of(rows: list[Row], suffix: str) -> bytes:
    """The file that holds these rows."""
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, row_group_size=4)
    return sink.getvalue().to_pybytes()


def is_missing(row: Row) -> bool:
    return not (row["description"] or "").strip()


def expected(row: Row) -> Row:
    """What must come out of a row."""
    if not is_missing(row):
        return {**row, "enrich_status": "kept", "enrich_flags": []}
    if not row["title"].strip():
        return {**row, "enrich_status": "rejected", "enrich_flags": ["no_title"]}
    if len(row["title"]) < MIN_CHARS:
        return {**row, "enrich_status": "held", "enrich_flags": ["too_short"]}
    return {**row, "description": row["title"], "enrich_status": "generated", "enrich_flags": []}


def check_rows(published: Path, rows: list[Row], suffix: str) -> None:
    """Each row is there once, in its order, with every value of its own, and its text is its own (P1, P4, P9)."""
    table = pq.read_table(published)
    assert table.drop_columns("enrich_score").to_pylist() == [expected(row) for row in rows]
    if suffix == ".parquet":
        assert table.schema.names[: len(SCHEMA)] == SCHEMA.names
        assert [table.schema.field(each.name).type for each in SCHEMA] == SCHEMA.types
        assert table.schema.metadata[b"owner"] == b"the shop"


TITLES = st.one_of(
    st.integers(0, 30).map("Product {}".format),
    st.sampled_from(["Lamp", "Lâmpada de mesa 40 W", "椅子 木製 4本脚 折りたたみ", "Garden hose 10 m", "", "   "]),
)
DESCRIPTIONS = st.one_of(st.none(), st.sampled_from(["", "  ", "A text.", "Um texto – à mão.", "Product 3"]))
ROWS = st.fixed_dictionaries(
    {
        "title": TITLES,
        "description": DESCRIPTIONS,
        "stock": st.none() | st.integers(100, 999),
        "tags": st.none() | st.lists(st.sampled_from(["new", "médio"]), max_size=2),
    }
)


def _place_of(rows: list[Row], at: int, *, missing: bool = True) -> int:
    """One of the rows that miss their description, if some do."""
    places = [place for place, row in enumerate(rows) if is_missing(row)] if missing else []
    places = places or [*range(len(rows))]
    return places[at % len(places)]


def _with_cell(rows: list[Row], place: int, name: str, value: Any) -> list[Row]:
    return [{**row, name: value} if index == place else row for index, row in enumerate(rows)]


def _reordered(rows: list[Row], at: int, _: Row) -> list[Row]:
    turn = at % len(rows)
    return [*reversed(rows[turn:]), *rows[:turn]]


EDITS: dict[str, Callable[[list[Row], int, Row], list[Row]]] = {
    "retitle": lambda rows, at, new: _with_cell(rows, _place_of(rows, at), "title", new["title"]),
    "describe": lambda rows, at, _: _with_cell(rows, _place_of(rows, at), "description", f"By hand {at}."),
    "undescribe": lambda rows, at, _: _with_cell(rows, at % len(rows), "description", None),
    "add": lambda rows, at, new: [*rows[: at % len(rows)], new, *rows[at % len(rows) :]],
    # A catalogue without a row has no columns either.
    "remove": lambda rows, at, _: [row for place, row in enumerate(rows) if place != at % len(rows)] or rows,
    "reorder": _reordered,
}


@dataclass(frozen=True)
class Edit:
    """What somebody does to the catalogue."""

    kind: str
    at: int
    row: Row

    def of(self, rows: list[Row], row_id: str) -> list[Row]:
        return EDITS[self.kind](rows, self.at, {"id": row_id, **self.row})


EDIT = st.builds(Edit, st.sampled_from(sorted(EDITS)), st.integers(0, 20), ROWS)
STEP = st.integers(2, 45)
# From which phase on, and which step. A run that has nothing to write makes few steps while it reads.
MOMENT = st.one_of(
    st.tuples(st.just(UNREAD), st.integers(2, 15)),
    st.tuples(st.just(READ), st.integers(1, 5)),
    st.tuples(st.just(READ), st.integers(1, 20)),
    st.tuples(st.sampled_from([WRITING, CHECKED]), st.integers(1, 12)),
)

Moment = tuple[str, int]


@dataclass(frozen=True)
class Damage:
    """What becomes of a file: `at` is a place in it, from 0 to 1; so many `bits` turn on the page that is there."""

    kind: str
    at: float
    bits: int
    seed: int

    def on(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        match self.kind:
            case "cut":
                path.write_bytes(content[: int(self.at * len(content))])
            case "empty":
                path.write_bytes(b"")
            case "gone":
                path.unlink()
            case "bits":
                path.write_bytes(self._turned(content))

    def _turned(self, content: bytearray) -> bytearray:
        start = int(self.at * len(content)) // _PAGE * _PAGE
        # Most of a page is room that nobody reads.
        used = [place for place in range(start, min(start + _PAGE, len(content))) if content[place]]
        chance = random.Random(self.seed)
        for place in chance.sample(used, min(self.bits, len(used))):
            content[place] ^= 1 << chance.randrange(8)
        return content


DAMAGE = st.builds(
    Damage,
    st.sampled_from(["cut", "empty", "gone", "bits", "bits", "bits"]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([1, 2, 40]),
    st.integers(0, 1 << 16),
)


# --- runs ------------------------------------------------------------------------------------------------------------


class Place:
    """A folder with a catalogue, in which runs are made."""

    def __init__(self, nursery: Nursery, folder: Path, suffix: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.catalogue = folder / f"catalog{suffix}"
        self.output = output_of(self.catalogue)
        self.memory = folder / ".enrich" / "memory.sqlite"
        self.lock = folder / ".enrich" / "lock"
        self.log = folder / "log"
        self._nursery = nursery
        config = folder / "enrich.toml"
        config.write_text(CONFIG)
        self._arguments = ("run", self.catalogue, "--engine", "echo", "--config", config)

    def run(self, log: Path | None = None, **orders: Any) -> int:
        return self._nursery.run(*self._arguments, log=log or self.log, batch_rows=BATCH_ROWS, **orders)

    def check_memory(self) -> int:
        return self._nursery.run("memory", "check", "--state", self.memory.parent, log=self.log)

    def run_on_full_disk(self, max_file_bytes: int) -> int:
        """Its log is no file and has room; it lies in `log` afterwards."""
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = self.run(pipe, max_file_bytes=max_file_bytes)
            self.log.write_bytes(os.read(reader, 1 << 16))
        finally:
            os.close(reader)
            pipe.unlink()
        return status

    @contextmanager
    def frozen(self, moment: Moment) -> Iterator["Frozen"]:
        """A run that stands still at that moment within the block, and goes on to its end behind it."""
        told = self.folder / "frozen"
        told.unlink(missing_ok=True)
        phase, step = moment
        orders = {"batch_rows": BATCH_ROWS, "freeze_from": phase, "freeze_before": step}
        process_id = self._nursery.start(*self._arguments, log=self.log, **orders)
        # Who is stopped by something else has said nothing.
        while (state := _state_of(process_id)) != "Z" and not (state == "T" and told.exists()):
            time.sleep(0.001)
        frozen = Frozen(process_id, ENDED if state == "Z" else told.read_text(), self.is_locked())
        try:
            yield frozen
        finally:
            os.kill(process_id, signal.SIGCONT)
            frozen.status = self._nursery.wait(process_id)

    def is_locked(self) -> bool:
        """Whether some run holds the lock."""
        if not self.lock.exists():
            return False
        with self.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def texts(self) -> Texts:
        # A journal lies there while the new memory turns to its log, before the first text; to read would mend it.
        if not self.memory.exists() or self.memory.with_name("memory.sqlite-journal").exists():
            return {}
        return texts_in(self.memory.parent)

    def spools(self) -> list[Path]:
        """The parsed copy of a catalogue that is not Parquet, and what belongs to it."""
        return sorted(path for path in self.memory.parent.glob("spool/*") if path.is_file())

    def published(self) -> bytes | None:
        return self.output.read_bytes() if self.output.exists() else None

    def temporaries(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(".*.tmp"))


@dataclass
class Frozen:
    """A run that stands still: how far it has come, whether it holds the lock, and how it ended in the end."""

    process_id: int
    phase: str
    is_holder: bool
    status: int = field(default=-1)


def completions_of(texts: Texts) -> dict[tuple[bytes, int], str]:
    """What each attempt said, whichever run made it."""
    return {key: completion for key, (_, completion, _) in texts.items()}


def _state_of(process_id: int) -> str:
    """R, S, D: it runs; T: it is stopped; Z: it has ended."""
    return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]


@dataclass(frozen=True)
class Before:
    """What a run found: the texts that it must leave as they are, and files that nobody needs any more."""

    texts: Texts
    temporaries: list[str]


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run in a fresh folder makes of a content."""

    published: bytes
    completions: dict[tuple[bytes, int], str]


class References:
    """References by content, each of which is held against the model once."""

    def __init__(self, nursery: Nursery, folder: Path, suffix: str) -> None:
        self.nursery, self.suffix = nursery, suffix
        self._folder = folder
        self._known: dict[bytes, Reference] = {}

    def of(self, rows: list[Row]) -> Reference:
        content = content_of(rows, self.suffix)
        if content not in self._known:
            self._known[content] = self._make(content, rows)
        return self._known[content]

    def _make(self, content: bytes, rows: list[Row]) -> Reference:
        place = Place(self.nursery, self._folder / "reference", self.suffix)
        try:
            place.catalogue.write_bytes(content)
            assert place.run() == PUBLISHED, place.log.read_text()
            check_rows(place.output, rows, self.suffix)
            return Reference(place.output.read_bytes(), completions_of(place.texts()))
        finally:
            shutil.rmtree(place.folder)


# --- the machine -----------------------------------------------------------------------------------------------------


class Faults(RuleBasedStateMachine):
    """The model: `rows` are what the catalogue holds, `published` is what lies under the output's name.

    `is_settled` after a success that nothing has followed; `is_damaged` while the memory may hold what was never
    written into it, so that runs may refuse it. `fired` counts the faults that met a run.
    """

    _numbers = count()

    def __init__(self, folder: Path, references: References, fired: Counter[str]) -> None:
        super().__init__()
        self.place = Place(references.nursery, folder / f"{next(self._numbers)}", references.suffix)
        self.references, self.fired = references, fired
        self.rows: list[Row] = []
        self.published: bytes | None = None
        self.is_settled = self.is_damaged = False
        self._ids = count(1)
        self._stock = count(1000)

    def teardown(self) -> None:
        shutil.rmtree(self.place.folder)

    @initialize(rows=st.lists(ROWS, min_size=1, max_size=10))
    def begin(self, rows: list[Row]) -> None:
        self.rows = [{"id": self._new_id(), **row} for row in rows]
        self._write()

    @invariant()
    def output_is_right(self) -> None:
        """It is absent, or what it was when it was published and held against its reference."""
        assert self.place.published() == self.published

    # --- runs that end by themselves, and runs that are killed

    @rule()
    def run(self) -> None:
        self._succeed()

    @precondition(lambda self: self.is_settled)
    @rule()
    def run_again(self) -> None:
        """Nothing has changed: the same bytes, and nothing is written."""
        before = self.place.texts()
        self._succeed()
        assert self.place.texts() == before
        assert "(0 of them now)" in self.place.log.read_text()

    @rule(step=STEP)
    def run_killed(self, step: int) -> None:
        self._run((KILLED, PUBLISHED), kill_before=step)

    @rule(steps=st.lists(STEP, min_size=2, max_size=4))
    def recovery_killed(self, steps: list[int]) -> None:
        """Killed again and again, and each time what was committed stays."""
        for step in steps:
            self._run((KILLED, PUBLISHED), kill_before=step)
        self._succeed()

    # --- edits

    @rule(edit=EDIT)
    def edit(self, edit: Edit) -> None:
        self.rows = edit.of(self.rows, self._new_id())
        self._write()

    @precondition(lambda self: not self.is_damaged)
    @rule(edit=EDIT, moment=MOMENT, in_place=st.booleans())
    def edit_while_it_runs(self, edit: Edit, moment: Moment, in_place: bool) -> None:
        """Noticed by the content alone, from the first look at the catalogue to the last one (P5)."""
        former, before = self.references.of(self.rows), self._before()
        with self.place.frozen(moment) as frozen:
            self.rows = edit.of(self.rows, self._new_id())
            # So that something has changed, whatever the edit makes of these rows.
            self.rows = _with_cell(self.rows, 0, "stock", next(self._stock))
            self._write(in_place=in_place)
        is_noticed = frozen.phase not in (UNREAD, CHECKED, ENDED)
        right = self.references.of(self.rows) if frozen.phase == UNREAD else former
        self._judge(frozen.status, (CHANGED if is_noticed else PUBLISHED,), right, before)
        self.fired["input changed"] += is_noticed

    # --- neighbours and signals

    @precondition(lambda self: not self.is_damaged)
    @rule(moment=MOMENT)
    def second_run(self, moment: Moment) -> None:
        """While one holds the lock the other says so and leaves; else both publish, one after the other (P7)."""
        right, before = self.references.of(self.rows), self._before()
        with self.place.frozen(moment) as first:
            said = self._neighbour((STOPPED if first.is_holder else PUBLISHED,), right)
            assert ("another run holds" in said) == first.is_holder
        self._judge(first.status, (PUBLISHED,), right, before)
        self.fired["second run"] += first.is_holder

    @precondition(lambda self: not self.is_damaged)
    @rule(moment=MOMENT)
    def lock_deleted_under_a_run(self, moment: Moment) -> None:
        """Nothing keeps two runs apart then: the one whose lock is gone notices, or misses a file that was swept away
        under it, and publishes nothing any more (P7)."""
        right, before = self.references.of(self.rows), self._before()
        with self.place.frozen(moment) as first:
            self.place.lock.unlink(missing_ok=True)
            self._neighbour((PUBLISHED,), right)
        if not first.is_holder:
            allowed: tuple[int, ...] = (PUBLISHED,)
        elif first.phase in (UNREAD, READ):
            allowed = (STOPPED, FAILED)
        else:
            # It may have looked at the lock for the last time.
            allowed = (PUBLISHED, STOPPED, FAILED)
        self._judge(first.status, allowed, right, before)
        self.fired["lock deleted"] += first.is_holder

    @precondition(lambda self: not self.is_damaged)
    @rule(moment=MOMENT, number=st.sampled_from([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
    def signalled(self, moment: Moment, number: signal.Signals) -> None:
        """It leaves soon, and what it has committed by then is there (P12)."""
        right, before = self.references.of(self.rows), self._before()
        with self.place.frozen(moment) as frozen:
            committed = self.place.texts()
            if frozen.phase != ENDED:
                os.kill(frozen.process_id, number)
            begun = time.monotonic()
        assert time.monotonic() - begun < 20
        assert committed.items() <= self.place.texts().items()
        if frozen.phase == ENDED:
            allowed = {PUBLISHED}
        elif not frozen.is_holder:
            allowed = {STOPPED, -number}
        elif frozen.phase in (UNREAD, READ):
            allowed = {STOPPED}
        else:
            allowed = {STOPPED, PUBLISHED}
        self._judge(frozen.status, tuple(allowed), right, before)
        self.fired["signal"] += frozen.status != PUBLISHED
        self._succeed()

    def _neighbour(self, allowed: tuple[int, ...], right: Reference) -> str:
        """A second run while another one stands still; returns what it said."""
        log = self.place.folder / "second"
        status, said = self.place.run(log), log.read_text()
        assert status in allowed, said
        if status == PUBLISHED:
            assert self.place.published() == right.published
            self.published = right.published
        return said

    # --- disks

    @precondition(lambda self: not self.is_damaged)
    @rule(max_file_bytes=st.integers(0, 6_000) | st.integers(6_000, 60_000))
    def full_disk(self, max_file_bytes: int) -> None:
        right, before = self.references.of(self.rows), self._before()
        status = self.place.run_on_full_disk(max_file_bytes)
        self._judge(status, (FAILED, PUBLISHED), right, before)
        self.fired["full disk"] += status == FAILED
        self._succeed()

    @precondition(lambda self: self.place.lock.exists())
    @rule(what=st.sampled_from(["the output is gone", "the lock is gone", "a file is left over"]))
    def meddle(self, what: str) -> None:
        """What somebody, or a run that was killed, may do between two runs."""
        if what == "the output is gone":
            self.place.output.unlink(missing_ok=True)
            self.published = None
        elif what == "the lock is gone":
            self.place.lock.unlink()
        else:
            # Under the name that the output bears while it is written.
            self.place.output.with_name(f".{self.place.output.name}.tmp").write_bytes(b"PAR1")

    # --- damage

    @precondition(lambda self: self.place.memory.exists())
    @rule(damage=DAMAGE, first=st.none() | STEP, to_log=st.booleans(), forgive=st.booleans())
    def damage_the_memory(self, damage: Damage, first: int | None, to_log: bool, forgive: bool) -> None:
        """A memory that is not what was written is refused in one line, or nothing wrong comes of it."""
        if first:
            # Only a run that was killed leaves a log of what is not in the memory's file yet.
            self._run((KILLED, PUBLISHED), kill_before=first)
        log = self.place.memory.with_name("memory.sqlite-wal")
        damage.on(log if to_log and log.exists() else self.place.memory)
        self.is_damaged, self.is_settled = True, False
        self._succeed()
        self.fired["memory damaged"] += self.is_damaged
        if self.is_damaged:
            self._look_at_the_memory(forgive)

    def _look_at_the_memory(self, forgive: bool) -> None:
        """A run has made do with it. If all of it is found whole it is, else it may still be refused later."""
        status = self.place.check_memory()
        assert status in (PUBLISHED, *REFUSED), self.place.log.read_text()
        if status == PUBLISHED:
            self.is_damaged = False
        elif forgive:
            self._forget()

    @precondition(lambda self: not self.is_damaged and self.place.spools())
    @rule(damage=DAMAGE, which=st.integers(0, 3))
    def damage_the_spool(self, damage: Damage, which: int) -> None:
        """A catalogue's parsed copy that is not what was written, or that nothing vouches for, is made anew."""
        spools = self.place.spools()
        damage.on(spools[which % len(spools)])
        self._succeed()
        self.fired["spool damaged"] += 1

    # --- how a run is judged

    def _succeed(self) -> None:
        """Runs to the end; a memory that is refused is moved away, as the one line says."""
        if self._run((PUBLISHED,)) in REFUSED:
            self.fired["memory refused"] += 1
            self._forget()
            self._run((PUBLISHED,))
        self.is_settled = True
        assert self.place.temporaries() == []
        if not self.is_damaged:
            remembered = completions_of(self.place.texts())
            assert self.references.of(self.rows).completions.items() <= remembered.items()

    def _run(self, allowed: tuple[int, ...], **orders: Any) -> int:
        right, before = self.references.of(self.rows), self._before()
        status = self.place.run(**orders)
        self._judge(status, allowed + REFUSED if self.is_damaged else allowed, right, before)
        return status

    def _judge(self, status: int, allowed: tuple[int, ...], right: Reference, before: Before) -> None:
        """Holds the end of a run against what it left: success is the right bytes, anything else is told in a line and
        leaves the former output; only a run that is killed may leave the new one as well."""
        said = self.place.log.read_text()
        assert status in allowed, said
        published = self.place.published()
        if status == PUBLISHED:
            assert published == right.published, said
        elif status == KILLED:
            assert published in (self.published, right.published), said
        else:
            assert published == self.published, said
        if status > 0:
            assert "Traceback" not in said
            assert sum(line.startswith("enrich: ") for line in said.splitlines()) == 1, said
            assert set(self.place.temporaries()) <= set(before.temporaries)
        if not self.is_damaged:
            assert before.texts.items() <= self.place.texts().items(), said
        self.published = published
        self.is_settled = False
        self.fired["kill"] += status == KILLED

    def _before(self) -> Before:
        # Of a damaged memory nothing can be relied on.
        return Before({} if self.is_damaged else self.place.texts(), self.place.temporaries())

    def _forget(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            self.place.memory.with_name(f"memory.sqlite{suffix}").unlink(missing_ok=True)
        self.is_damaged = self.is_settled = False

    # --- the catalogue

    def _new_id(self) -> str:
        return f"{next(self._ids):05}"

    def _write(self, *, in_place: bool = False) -> None:
        """In its place with the time of the former content, or as a new file that takes its name."""
        content, catalogue = content_of(self.rows, self.references.suffix), self.place.catalogue
        if in_place:
            times = catalogue.stat()
            catalogue.write_bytes(content)
            os.utime(catalogue, ns=(times.st_atime_ns, times.st_mtime_ns))
        else:
            new = self.place.folder / "new"
            new.write_bytes(content)
            new.replace(catalogue)
        self.is_settled = False


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    # Arrow imports pandas when it is first handed Python objects: once is enough.
    with Nursery.open("tests.faults.limits", "pandas", "pyarrow.pandas_compat") as nursery:
        yield nursery


def note(fired: Counter[str], record_property: Callable[[str, object], None]) -> None:
    """For the table of all faults: fired, survived, rows lost."""
    for kind, number in sorted(fired.items()):
        record_property("fault", [f"F25 {kind}", number, number, 0])


@pytest.mark.timeout(6 * 3600 if FULL else 300)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_whatever_happens_nothing_wrong_is_published(
    tmp_path: Path, nursery: Nursery, suffix: str, record_property: Callable[[str, object], None]
) -> None:
    references, fired = References(nursery, tmp_path, suffix), Counter[str]()
    run_state_machine_as_test(
        lambda: Faults(tmp_path, references, fired),
        settings=settings(
            max_examples=EXAMPLES // 2,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            # The same examples in every short run, and what fails fails at once.
            derandomize=not FULL,
            phases=(Phase.generate, Phase.shrink) if FULL else (Phase.generate,),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    note(fired, record_property)


def test_each_fault_meets_a_run(
    tmp_path: Path, nursery: Nursery, record_property: Callable[[str, object], None]
) -> None:
    """The control: none of the rules is one that never comes to anything."""
    fired = Counter[str]()
    machine = Faults(tmp_path, References(nursery, tmp_path, ".jsonl"), fired)
    row: Row = {"description": None, "stock": 100, "tags": None}
    machine.begin([{"title": f"Product {number}", **row} for number in range(5)])
    for step, phase in enumerate(PHASES, 2):
        edit = Edit("add", 0, {"title": f"Product {step}{step}", **row})
        machine.run_killed(5 * step)
        machine.second_run((phase, step))
        machine.edit_while_it_runs(edit, (phase, step), in_place=step % 2 > 0)
        machine.signalled((phase, step), signal.SIGTERM)
        machine.edit(edit)
        machine.lock_deleted_under_a_run((phase, step))
        machine.full_disk(3000 * step)
        machine.output_is_right()
    machine.run()
    machine.run_again()
    for kind in ("bits", "cut", "empty", "gone"):
        damage = Damage(kind, 0.3, 3, 1)
        machine.damage_the_memory(damage, first=25, to_log=False, forgive=True)
        machine.damage_the_memory(damage, first=25, to_log=True, forgive=True)
        for which in range(2):
            machine.damage_the_spool(damage, which)
        machine.output_is_right()
    machine.teardown()
    note(fired, record_property)
    assert min(fired[kind] for kind in FAULTS) > 0, fired
