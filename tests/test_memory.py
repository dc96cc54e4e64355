"""The memory keeps each text with its own key, through kills, full disks and other people's files."""

import errno
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from string import ascii_letters

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich import memory_file
from enrich.errors import Busy, IOFailure, NoInput, SettingsError, UsageError
from enrich.memory import Entry, Memory, Remembered, Review, Verdict

BATCH = 64


def key_of(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


def entry_of(number: int, attempt: int = 0) -> Entry:
    flags = ("short", f"row-{number}") if number % 2 else ()
    return Entry(
        key_of(number),
        attempt,
        f"raw {number}.{attempt}",
        "length" if number % 3 == 0 else "eos",
        Verdict(
            "policy-1",
            ("publish", "retry", "hold")[number % 7 % 3],
            None if number % 5 == 0 else f"text {number}.{attempt}",
            flags,
            number % 101,
        ),
        cut=number % 11 == 0,
    )


def fill(path: Path, numbers: range, recipe: str = "recipe") -> None:
    with Memory.open(path) as memory:
        memory.add(memory.begin_run(f"run of {recipe}", recipe), [entry_of(number) for number in numbers])


def recalled(path: Path, numbers: range) -> dict[int, list[Entry]]:
    """What the file holds for each number, attempt by attempt, read by a connection of its own."""
    keys = {key_of(number): number for number in numbers}
    with Memory.open(path, read_only=True) as memory:
        return {keys[key]: entries_of(key, texts) for key, texts in memory.recall(keys, "policy-1").items()}


def entries_of(key: bytes, texts: Sequence[Remembered]) -> list[Entry]:
    """What was added, from what is remembered of it."""
    return [
        Entry(key, was.attempt, was.completion, was.ended, was.verdict, was.cut)
        for was in texts
        if was.verdict is not None
    ]


def expected(numbers: range, *attempts: int) -> dict[int, list[Entry]]:
    return {number: [entry_of(number, attempt) for attempt in attempts or (0,)] for number in numbers}


def check_whole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "memory.sqlite"


# --- what is kept ---------------------------------------------------------------------------------


def test_each_key_gets_its_own_text_back(path: Path) -> None:
    fill(path, range(200))
    assert recalled(path, range(-50, 250)) == expected(range(200))


def test_known_names_exactly_the_keys_that_have_a_text(path: Path) -> None:
    fill(path, range(10))
    with Memory.open(path) as memory:
        assert memory.known([key_of(n) for n in range(5, 15)]) == {key_of(n) for n in range(5, 10)}
        assert memory.known([]) == set()


def test_a_hundred_thousand_keys_in_one_look_up(path: Path) -> None:
    fill(path, range(0, 100_000, 7))
    keys = [key_of(number) for number in range(100_000)]
    with Memory.open(path) as memory:
        assert memory.known(keys) == set(keys[::7])
        found = memory.recall(keys, "policy-1")
    assert {key: [was.completion for was in texts] for key, texts in found.items()} == {
        key_of(number): [f"raw {number}.0"] for number in range(0, 100_000, 7)
    }


# A text as cleaning leaves it: the completion, or the beginning of it.
CUT = st.integers(0, 20).map(lambda chars: lambda raw: raw.strip()[: len(raw) if chars > 15 else chars])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.dictionaries(
        st.binary(max_size=40), st.tuples(st.text(), st.none() | st.text() | CUT, st.lists(st.text(max_size=8)))
    ),
    strangers=st.sets(st.binary(max_size=40)),
)
def test_any_bytes_are_a_key_and_any_text_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
    entries: dict[bytes, tuple[str, str | Callable[[str], str] | None, list[str]]],
    strangers: set[bytes],
) -> None:
    entries = {key: (raw, text(raw) if callable(text) else text, flags) for key, (raw, text, flags) in entries.items()}
    path = tmp_path_factory.mktemp("any") / "memory.sqlite"
    with Memory.open(path) as memory:
        memory.add(
            memory.begin_run("run", "recipe"),
            [
                Entry(key, 0, raw, "eos", Verdict("p", "hold", text, tuple(flags)))
                for key, (raw, text, flags) in entries.items()
            ],
        )
        found = memory.recall(entries.keys() | strangers, "p")
        assert memory.known(entries.keys() | strangers) == entries.keys()
    kept = {key: entries_of(key, texts) for key, texts in found.items()}
    assert {
        key: (entry.completion, entry.verdict.text, list(entry.verdict.flags)) for key, (entry,) in kept.items()
    } == entries


def test_a_text_that_begins_its_completion_is_kept_once(path: Path) -> None:
    whole, begun, other = ("".join(random.choices(ascii_letters, k=40_000)) for _ in range(3))
    texts = {b"whole": whole, b"begun": begun[:30_000], b"other": other}
    completions = {b"whole": f" {whole}\n", b"begun": f"  {begun}", b"other": "Another."}
    with Memory.open(path) as memory:
        memory.add(
            memory.begin_run("run", "recipe"),
            [Entry(key, 0, completions[key], "eos", Verdict("p", "publish", text)) for key, text in texts.items()],
        )
        found = memory.recall(texts.keys(), "p")
        assert {key: was.judged.text for key, (was,) in found.items()} == texts
        # Judged anew, the first is cut and the last is not.
        anew = {b"whole": whole[:9], b"begun": begun, b"other": "Another."}
        memory.add_verdicts({found[key][0].text_id: Verdict("q", "publish", text) for key, text in anew.items()})
        assert {key: was.judged.text for key, (was,) in memory.recall(anew.keys(), "q").items()} == anew
        memory.export(path.with_name("copy"))
    assert 80_000 < path.with_name("copy").stat().st_size < 140_000
    check_whole(path)


def others(numbers: range, attempt: int) -> list[Entry]:
    """Another text and another verdict for each of an attempt."""
    verdict = Verdict("policy-1", "publish", "other", ("x",), 1)
    return [Entry(key_of(number), attempt, "other", "eos", verdict) for number in numbers]


def test_a_replayed_batch_changes_nothing(path: Path) -> None:
    fill(path, range(20))
    with Memory.open(path) as memory:
        run = memory.begin_run("second night", "recipe")
        memory.add(run, others(range(20), attempt=0))
    assert recalled(path, range(20)) == expected(range(20))


def test_attempts_stand_side_by_side_and_none_is_ever_overwritten(path: Path) -> None:
    fill(path, range(20))
    with Memory.open(path) as memory:
        run = memory.begin_run("second night", "recipe")
        memory.add(run, [entry_of(n, attempt=2) for n in range(10)])
        memory.add(run, [entry_of(n, attempt=1) for n in range(5)])
        assert memory.stats().texts == memory.stats().verdicts == 20 + 10 + 5
        before = memory.recall([key_of(n) for n in range(20)], "policy-1")
        for attempt in (2, 1, 0):
            memory.add(run, others(range(5), attempt))
        assert memory.recall([key_of(n) for n in range(20)], "policy-1") == before
        assert memory.stats().texts == memory.stats().verdicts == 35
    assert recalled(path, range(5)) == expected(range(5), 0, 1, 2)
    assert recalled(path, range(5, 10)) == expected(range(5, 10), 0, 2)
    assert recalled(path, range(10, 20)) == expected(range(10, 20))
    # The control: what is refused as a replay is taken as an attempt of its own.
    with Memory.open(path) as memory:
        memory.add(run, others(range(5), attempt=3))
    found = recalled(path, range(5))
    assert [found[n][3:] for n in range(5)] == [[each] for each in others(range(5), 3)]


def test_attempts_of_one_batch_each_keep_their_own_text(path: Path) -> None:
    with Memory.open(path) as memory:
        run = memory.begin_run("run", "recipe")
        memory.add(run, [entry_of(n, attempt) for attempt in (1, 0, 10, 2) for n in range(9, -1, -1)])
    assert recalled(path, range(10)) == expected(range(10), 0, 1, 2, 10)


def test_each_text_names_the_run_that_wrote_it(path: Path) -> None:
    with Memory.open(path) as memory:
        first, second = (memory.begin_run(name, "recipe") for name in ("first", "second"))
        memory.add(first, [entry_of(1), entry_of(2)])
        memory.add(second, [entry_of(1), entry_of(2, attempt=1), entry_of(3)])
        found = memory.recall([key_of(n) for n in range(5)], "policy-1")
    assert {key: [was.run for was in texts] for key, texts in found.items()} == {
        key_of(1): [first],
        key_of(2): [first, second],
        key_of(3): [second],
    }
    assert len({was.text_id for texts in found.values() for was in texts}) == 4


def test_a_verdict_of_another_policy_is_not_served(path: Path) -> None:
    fill(path, range(4))
    keys = [key_of(n) for n in range(4)]
    with Memory.open(path) as memory:
        memory.add(memory.begin_run("second night", "recipe"), [entry_of(3, attempt=1)])
        assert all(was.verdict for texts in memory.recall(keys, "policy-1").values() for was in texts)
        stale = memory.recall(keys, "policy-2")
        assert {was.verdict for texts in stale.values() for was in texts} == {None}
        assert [was.completion for was in stale[key_of(3)]] == ["raw 3.0", "raw 3.1"]
        anew = {n: Verdict("policy-2", "hold", f"anew {n}", ("new",), n) for n in (3, 1)}
        memory.add_verdicts({stale[key_of(n)][-1].text_id: verdict for n, verdict in anew.items()})
        # Of the two attempts at 3 only the one that was judged has a verdict.
        judged = {key: [was.verdict for was in texts] for key, texts in memory.recall(keys, "policy-2").items()}
        assert judged == {key_of(0): [None], key_of(1): [anew[1]], key_of(2): [None], key_of(3): [None, anew[3]]}
        former = {key: [was.verdict for was in texts] for key, texts in memory.recall(keys, "policy-1").items()}
        assert former == {
            key_of(0): [entry_of(0).verdict],
            key_of(1): [None],
            key_of(2): [entry_of(2).verdict],
            key_of(3): [entry_of(3).verdict, None],
        }


def test_verdicts_are_replaced_all_or_none(path: Path) -> None:
    fill(path, range(3))
    keys = [key_of(n) for n in range(3)]
    with Memory.open(path) as memory:
        ids = [memory.recall([key], "policy-1")[key][0].text_id for key in keys]
        good, unstorable = Verdict("policy-2", "publish"), Verdict("policy-2", "publish", "text", (b"no text",))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            memory.add_verdicts({min(ids): good, max(ids): unstorable})
        assert memory.stats().verdicts == 3
    assert recalled(path, range(3)) == expected(range(3))


def test_a_text_without_text_flags_or_score_is_still_judged(path: Path) -> None:
    with Memory.open(path) as memory:
        memory.add(memory.begin_run("run", "recipe"), [Entry(b"k", 0, "", "failed", Verdict("p", "hold"))])
        (was,) = memory.recall([b"k"], "p")[b"k"]
        assert was.verdict == Verdict("p", "hold", None, (), None)


# --- what is to be tried again ------------------------------------------------------------------------------------


def unsettled(path: Path, policy: str = "p", recipe: str = "recipe") -> list[bool]:
    """The answer for attempts 0, 1, 2 and 3."""
    with Memory.open(path, read_only=True) as memory:
        return [memory.is_unsettled(recipe, policy, attempt) for attempt in range(4)]


def add(path: Path, *entries: Entry) -> None:
    with Memory.open(path) as memory:
        memory.add(memory.begin_run("run", "recipe"), entries)


def judged_so(key: bytes, attempt: int, action: str, ended: str = "eos", policy: str = "p") -> Entry:
    return Entry(key, attempt, "raw", ended, Verdict(policy, action))


@pytest.mark.parametrize("ended", ["eos", "length"])
@pytest.mark.parametrize(("action", "asks"), [("publish", False), ("retry", True), ("hold", False)])
def test_a_text_is_unsettled_when_its_verdict_asks_for_another_attempt(
    path: Path, action: str, ended: str, asks: bool
) -> None:
    add(path)
    assert unsettled(path) == [False] * 4
    add(path, *(judged_so(key_of(n), 0, "publish") for n in range(20)))
    assert unsettled(path) == [False] * 4
    add(path, judged_so(b"k", 0, action, ended))
    assert unsettled(path) == [asks, False, False, False]


@pytest.mark.parametrize("ended", ["failed", "refused"])
@pytest.mark.parametrize("action", ["publish", "retry", "hold"])
def test_what_was_not_written_is_settled_whatever_its_verdict(path: Path, ended: str, action: str) -> None:
    add(path, judged_so(b"k", 0, action, ended))
    assert unsettled(path) == [False] * 4
    # Nor has it to be judged by another policy.
    assert unsettled(path, "another") == [False] * 4


def test_only_the_last_attempt_at_a_product_is_unsettled(path: Path) -> None:
    add(path, judged_so(b"one", 0, "retry"), judged_so(b"two", 0, "retry"))
    assert unsettled(path) == [True, False, False, False]
    add(path, judged_so(b"one", 1, "retry"))
    assert unsettled(path) == [True, True, False, False]
    add(path, judged_so(b"two", 1, "publish"))
    assert unsettled(path) == [False, True, False, False]
    add(path, judged_so(b"one", 2, "hold"))
    assert unsettled(path) == [False] * 4
    # Nor does it matter that an attempt between was left out, or that a later one failed.
    add(path, judged_so(b"three", 1, "retry"))
    assert unsettled(path) == [False, True, False, False]
    add(path, judged_so(b"three", 3, "hold", "failed"))
    assert unsettled(path) == [False] * 4


def test_what_another_recipe_wrote_is_not_asked_about(path: Path) -> None:
    add(path, judged_so(b"k", 0, "retry"))
    assert unsettled(path) == [True, False, False, False]
    assert unsettled(path, recipe="another") == [False] * 4


def test_a_text_without_a_verdict_of_the_policy_is_unsettled(path: Path) -> None:
    add(path, judged_so(b"one", 0, "publish"), judged_so(b"two", 0, "retry"), judged_so(b"two", 1, "publish"))
    assert unsettled(path, "p") == [False] * 4
    assert unsettled(path, "another") == [True, True, False, False]
    with Memory.open(path) as memory:
        found = memory.recall([b"one", b"two"], "another")
        memory.add_verdicts({found[b"one"][0].text_id: Verdict("another", "publish")})
        memory.add_verdicts({found[b"two"][1].text_id: Verdict("another", "hold")})
    # The first text of two has been tried again since: nobody needs a verdict on it.
    assert unsettled(path, "another") == [False] * 4
    assert unsettled(path, "p") == [True, True, False, False]


def test_the_last_review_of_a_product_counts(path: Path) -> None:
    with Memory.open(path) as memory:
        memory.add_reviews({b"a": Review("approved"), b"b": Review("held", "why")})
        memory.add_reviews({b"a": Review("approved", "a person's words")})
        assert memory.reviews([b"a", b"b", b"c"]) == {
            b"a": Review("approved", "a person's words"),
            b"b": Review("held", "why"),
        }


def test_a_shape_is_read_back_and_can_step_down(path: Path) -> None:
    with Memory.open(path) as memory:
        assert memory.shape("grid") is None
        memory.set_shape("grid", "1024x512")
        memory.set_shape("bucket", "64")
        memory.set_shape("grid", "512x512")
    with Memory.open(path, read_only=True) as memory:
        assert (memory.shape("grid"), memory.shape("bucket")) == ("512x512", "64")


def test_a_run_is_taken_up_again_but_never_with_another_recipe(path: Path) -> None:
    with Memory.open(path) as memory:
        first = memory.begin_run("night", "recipe")
        assert memory.begin_run("night", "recipe") == first
        assert memory.begin_run("next night", "recipe") != first
        with pytest.raises(SettingsError, match="night began with other settings"):
            memory.begin_run("night", "other")


def test_stats_count_what_is_there(path: Path) -> None:
    fill(path, range(30))
    with Memory.open(path) as memory:
        memory.add_reviews({b"a": Review("approved")})
        stats = memory.stats()
    assert (stats.texts, stats.ended, stats.verdicts) == (30, {"eos": 20, "length": 10}, 30)
    assert (stats.reviews, stats.runs) == (1, 1)
    assert stats.file_bytes >= path.stat().st_size > 0


def test_prune_keeps_the_recipes_the_reviews_and_the_shapes(path: Path) -> None:
    fill(path, range(3000), recipe="old")
    fill(path, range(3000, 3006), recipe="new")
    fill(path, range(3006, 3010), recipe="another")
    before = path.stat().st_size
    with Memory.open(path) as memory:
        memory.add_reviews({b"a": Review("approved")})
        memory.set_shape("grid", "8x64")
        assert memory.prune(["new", "another", "unknown"]) == 3000
        assert memory.prune(["another", "new"]) == 0
        stats = memory.stats()
        assert (stats.texts, stats.verdicts, stats.reviews, memory.shape("grid")) == (10, 10, 1, "8x64")
    assert recalled(path, range(3010)) == expected(range(3000, 3010))
    assert path.stat().st_size < before / 4
    check_whole(path)


# --- one transaction a batch ----------------------------------------------------------------------

_CHILD = """
import os, signal, sys
from pathlib import Path
from enrich.memory import Memory
from tests.test_memory import BATCH, entry_of, key_of

path, way = Path(sys.argv[1]), sys.argv[2]

class Deadly(tuple):
    def __iter__(self):
        os.kill(os.getpid(), signal.SIGKILL)

def batch(number):
    return [entry_of(row) for row in range(number * BATCH, (number + 1) * BATCH)]

with Memory.open(path) as memory:
    run = memory.begin_run("child", "recipe")
    for number in range(10**9):
        rows = batch(number)
        if way == "half" and number == 3:
            # The batch is written in the order of its keys, so half of it lies in the open transaction.
            rows = sorted(rows, key=lambda row: row.key)
            row = rows[BATCH // 2]
            rows[BATCH // 2] = row._replace(verdict=row.verdict._replace(flags=Deadly("x")))
        memory.add(run, rows)
        print(number, flush=True)
"""


@pytest.fixture
def writer(path: Path) -> Iterator["subprocess.Popen[str]"]:
    with spawn(path, "endless") as child:
        try:
            yield child
        finally:
            child.kill()
    check_whole(path)


def spawn(path: Path, way: str) -> "subprocess.Popen[str]":
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), way],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def acknowledge(child: "subprocess.Popen[str]", batches: int, first: int = 0) -> None:
    assert child.stdout is not None
    for number in range(first, first + batches):
        assert child.stdout.readline() == f"{number}\n"


@pytest.mark.parametrize("batches", [1, 7, 20])
def test_kill_9_keeps_every_acknowledged_batch_and_no_half_of_the_next(path: Path, batches: int) -> None:
    with spawn(path, "endless") as child:
        acknowledge(child, batches)
        child.kill()
        assert child.stdout is not None
        last = [int(line) for line in child.stdout.read().split()] or [batches - 1]
    check_whole(path)
    with Memory.open(path, read_only=True) as memory:
        rows = memory.stats().texts
    assert rows in {(last[-1] + 1) * BATCH, (last[-1] + 2) * BATCH}
    assert recalled(path, range(rows + BATCH)) == expected(range(rows))


def test_kill_9_inside_a_batch_leaves_none_of_it_and_the_rerun_completes_it(path: Path) -> None:
    with spawn(path, "half") as child:
        acknowledge(child, 3)
        assert child.wait() == -signal.SIGKILL
    assert recalled(path, range(5 * BATCH)) == expected(range(3 * BATCH))
    fill(path, range(5 * BATCH))
    assert recalled(path, range(5 * BATCH)) == expected(range(5 * BATCH))
    check_whole(path)


def test_an_error_inside_a_batch_leaves_none_of_it_and_the_memory_usable(path: Path) -> None:
    fill(path, range(3))
    with Memory.open(path) as memory:
        run = memory.begin_run("run", "recipe")
        verdict = Verdict("p", "publish", "text", (b"no text",))  # type: ignore[arg-type]
        unstorable = Entry(b"\xff" * 16, 0, "raw", "eos", verdict)
        with pytest.raises(TypeError):
            memory.add(run, [entry_of(3), unstorable])
        assert memory.known([key_of(3)]) == set()
        memory.add(run, [entry_of(3)])
    assert recalled(path, range(5)) == expected(range(4))


def test_a_reader_sees_whole_batches_while_another_process_writes(path: Path, writer: "subprocess.Popen[str]") -> None:
    acknowledge(writer, 2)
    with Memory.open(path, read_only=True) as memory:
        for number in range(2, 30):
            acknowledge(writer, 1, first=number)
            count = memory.stats().texts
            assert count % BATCH == 0
            assert count > number * BATCH


def test_export_is_a_consistent_copy_while_another_process_writes(
    path: Path, writer: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    copy = tmp_path / "copy.sqlite"
    copy.write_text("yesterday's")
    acknowledge(writer, 2)
    with Memory.open(path, read_only=True) as memory:
        memory.export(copy)
    with Memory.open(copy, read_only=True) as memory:
        rows = memory.stats().texts
    assert rows >= 2 * BATCH
    assert rows % BATCH == 0
    assert recalled(copy, range(rows + 1)) == expected(range(rows))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    check_whole(copy)


def test_an_export_can_become_the_memory(path: Path, tmp_path: Path) -> None:
    fill(path, range(5))
    copy = tmp_path / "other" / "memory.sqlite"
    copy.parent.mkdir()
    with Memory.open(path) as memory:
        memory.export(copy)
    fill(copy, range(5, 9), recipe="more")
    assert recalled(copy, range(20)) == expected(range(9))


def test_a_failed_export_leaves_the_old_copy_and_no_litter(path: Path, tmp_path: Path) -> None:
    fill(path, range(5))
    copy = tmp_path / "copies" / "copy.sqlite"
    copy.parent.mkdir()
    copy.write_text("yesterday's")
    with Memory.open(path) as memory:
        memory._connection.execute("BEGIN")  # VACUUM INTO refuses to run inside a transaction
        with pytest.raises(sqlite3.OperationalError, match="VACUUM"):
            memory.export(copy)
    assert [(file.name, file.read_text()) for file in copy.parent.iterdir()] == [("copy.sqlite", "yesterday's")]


@pytest.mark.parametrize("failing", [None, "file", "replace", "folder"])
def test_a_copy_is_synced_before_its_name_and_no_sync_is_retried(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str | None
) -> None:
    fill(path, range(5))
    copy = tmp_path / "copies" / "copy.sqlite"
    copy.parent.mkdir()
    copy.write_text("yesterday's")
    calls = []

    def note(call: str) -> None:
        calls.append(call)
        if call == failing:
            raise OSError(errno.EIO, "Input/output error")

    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: note("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"))
    monkeypatch.setattr(os, "replace", lambda *names: (note("replace"), replace(*names)))
    order = ["file", "replace", "folder"]
    with Memory.open(path) as memory:
        if failing is None:
            memory.export(copy)
        else:
            with pytest.raises(IOFailure, match="Input/output error"):
                memory.export(copy)
    assert calls == (order[: order.index(failing) + 1] if failing else order)
    assert [file.name for file in copy.parent.iterdir()] == ["copy.sqlite"]
    if failing in ("file", "replace"):
        assert copy.read_text() == "yesterday's"
    else:
        assert recalled(copy, range(9)) == expected(range(5))


def test_export_never_writes_over_a_memory_in_use(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "memory.sqlite"
    with Memory.open(path) as memory, Memory.open(other) as used:
        used.add(used.begin_run("run", "recipe"), [entry_of(1)])
        for target in (path, other):
            with pytest.raises(UsageError, match="a memory in use"):
                memory.export(target)
    assert recalled(other, range(3)) == expected(range(1, 2))


# --- the file -------------------------------------------------------------------------------------


def test_a_new_memory_is_private_durable_and_ours(path: Path) -> None:
    old = os.umask(0)
    try:
        with Memory.open(path) as memory:
            memory.begin_run("run", "recipe")
            modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            settings_ = [
                memory._connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "cache_size")
            ]
    finally:
        os.umask(old)
    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert settings_ == ["wal", 2, 1, -131072]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    header = path.read_bytes()[:100]
    assert header[68:72] == b"enrc"
    assert int.from_bytes(header[60:64], "big") == 5


def test_read_only_needs_a_memory_and_never_writes(path: Path) -> None:
    with pytest.raises(NoInput, match="no such memory"), Memory.open(path, read_only=True):
        pass
    assert not path.parent.exists()
    fill(path, range(3))
    before = path.read_bytes()
    with Memory.open(path, read_only=True) as memory:
        assert memory.known([key_of(1)]) == {key_of(1)}
        with pytest.raises(IOFailure, match="readonly"):
            memory.set_shape("grid", "1x1")
    assert path.read_bytes() == before


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.sqlite"
    fill(target, range(3))
    path.parent.mkdir()
    for aim in (target, tmp_path / "missing"):
        path.unlink(missing_ok=True)
        path.symlink_to(aim)
        for read_only in (False, True):
            with (
                pytest.raises(SettingsError, match="not a regular file"),
                Memory.open(path, read_only=read_only),
            ):
                pass
    assert not (tmp_path / "missing").exists()


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE text (id)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="another program"), Memory.open(path):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [1, 2, 3, 4, 6])
def test_an_older_or_a_newer_format_is_refused_untouched(path: Path, version: int) -> None:
    fill(path, range(3))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=f"format {version}, and this version reads 5"), Memory.open(path):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b'{"title": "a catalogue"}\n' * 300])
def test_what_is_no_database_is_refused_untouched(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(IOFailure, match="damaged"), Memory.open(path, read_only=read_only):
            pass
    assert path.read_bytes() == content


def test_a_truncated_memory_is_refused_at_any_length(path: Path) -> None:
    fill(path, range(100))
    whole = path.read_bytes()
    for length in [*range(1, 200, 13), *range(200, len(whole), 509), len(whole) - 4096, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(IOFailure, match="damaged"), Memory.open(path):
            pass
        path.with_name("memory.sqlite-wal").unlink(missing_ok=True)
        path.with_name("memory.sqlite-shm").unlink(missing_ok=True)


def test_a_stump_is_refused_before_sqlite_throws_its_log_away(path: Path) -> None:
    with Memory.open(path) as memory:
        memory.add(memory.begin_run("run", "recipe"), [entry_of(1)])
        log = path.with_name("memory.sqlite-wal")
        content = log.read_bytes()
    path.write_bytes(path.read_bytes()[:100])
    log.write_bytes(content)
    with pytest.raises(IOFailure, match="cut short"), Memory.open(path):
        pass
    assert log.read_bytes() == content


def test_damage_inside_surfaces_as_one_line(path: Path) -> None:
    fill(path, range(2000))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(IOFailure, match="damaged") as caught, Memory.open(path) as memory:
        memory.recall([key_of(n) for n in range(2000)], "policy-1")
    assert "\n" not in str(caught.value)


def test_no_bit_that_turns_gives_a_text_that_was_not_written(path: Path) -> None:
    """Of all that is recalled nothing is wrong, whichever bit of the file turns; `check` notices what matters."""
    numbers = range(24)
    with Memory.open(path) as memory:
        memory.add(memory.begin_run("run", "recipe"), [entry_of(number) for number in numbers])
        memory.add_reviews({key_of(number): Review("edited", f"by hand {number}") for number in numbers})
    whole, written = path.read_bytes(), expected(numbers)
    noticed = {"by SQLite": 0, "by a digest": 0, "not at all": 0}
    chance = random.Random(1)
    for _ in range(1500):
        bit = chance.randrange(100 * 8, len(whole) * 8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            with Memory.open(path) as memory:
                found = memory.recall([key_of(number) for number in numbers], "policy-1")
                texts = {number: entries_of(key_of(number), found.get(key_of(number), [])) for number in numbers}
                reviews = memory.reviews([key_of(number) for number in numbers])
                memory.check()
            noticed["not at all"] += 1
            assert texts == written
            assert len(reviews) == len(numbers)
        except IOFailure as error:
            noticed["by a digest" if "not what was written" in str(error) else "by SQLite"] += 1
        else:
            continue
        finally:
            for suffix in ("-wal", "-shm"):
                path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
        # Noticed late is early enough when nothing wrong came out before.
        assert all(each in ([], written[number]) for number, each in texts.items()), bit
    assert min(noticed["by SQLite"], noticed["by a digest"]) > 50, noticed


def test_check_reads_every_table(path: Path) -> None:
    """A value that turns into another is told by its table, and a whole memory is whole."""
    spoiled = {
        "run": "UPDATE run SET withdrawn = 1",
        "text": "UPDATE text SET completion = 'another' WHERE id = 7",
        "verdict": "UPDATE verdict SET score = 100 WHERE text_id = 7",
        "review": "UPDATE review SET text = 'another'",
        "shape": "UPDATE shape SET value = '2x2'",
    }
    for table, statement in spoiled.items():
        path.unlink(missing_ok=True)
        fill(path, range(9))
        with Memory.open(path) as memory:
            memory.add_reviews({key_of(1): Review("edited", "by hand")})
            memory.set_shape("grid", "1x1")
            memory.check()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()
        with pytest.raises(IOFailure, match=f"a {table} is not what was written"), Memory.open(path) as memory:
            memory.check()


def test_a_memory_without_its_tables_is_damaged(path: Path) -> None:
    fill(path, range(3))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE review")
    with pytest.raises(IOFailure, match="its tables are not those of a memory"), Memory.open(path):
        pass


def test_a_log_without_its_memory_is_not_replayed_into_a_new_one(path: Path) -> None:
    with Memory.open(path) as memory:
        memory.add(memory.begin_run("run", "recipe"), [entry_of(1)])
        log = path.with_name("memory.sqlite-wal")
        orphan = log.read_bytes()
    path.unlink()
    log.write_bytes(orphan)
    with pytest.raises(IOFailure, match="the memory of this log is gone"), Memory.open(path):
        pass
    assert log.read_bytes() == orphan
    assert not path.exists()


def test_opening_twice_in_one_process_keeps_the_first_writers_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "_BUSY_SECONDS", 0.05)
    fill(path, range(3))
    with Memory.open(path) as writing:
        writing._connection.execute("BEGIN IMMEDIATE")
        with Memory.open(path, read_only=True):
            pass
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); "
            "c.execute('INSERT INTO shape VALUES (1, 1, 1)')"
        )
        other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert "database is locked" in other.stderr
        with Memory.open(path) as second, pytest.raises(Busy, match="keeps it locked"):
            second.set_shape("grid", "1x1")
        writing._connection.execute("ROLLBACK")


_FULL_DISK = """
import json, resource, sys
from pathlib import Path
from string import ascii_letters
from enrich.errors import IOFailure
from enrich.memory import Memory
from tests.test_memory import entry_of

with Memory.open(Path(sys.argv[1])) as memory:
    run = memory.begin_run("run", "recipe")
    memory.add(run, [entry_of(n) for n in range(50)])
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        memory.add(run, [entry_of(n) for n in range(50, 20_000)])
    except IOFailure as error:
        line = str(error)
    else:
        line = "no error"
    try:
        memory.export(Path(sys.argv[2]))
    except IOFailure as error:
        export = str(error)
    else:
        export = "no error"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    memory.add(run, [entry_of(n) for n in range(50, 60)])
print(json.dumps([line, export]))
"""


def test_a_file_that_cannot_grow_is_an_io_failure_and_keeps_what_was_committed(path: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(path), str(tmp_path / "missing" / "copy")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    line, export = json.loads(done.stdout)
    assert "check space and permissions" in line
    assert "No such file or directory" in export
    assert recalled(path, range(30_000)) == expected(range(60))
    check_whole(path)


def test_a_caller_s_own_error_is_not_taken_for_ours(path: Path) -> None:
    with pytest.raises(OSError, match="of the caller"), Memory.open(path):
        raise OSError("of the caller")
