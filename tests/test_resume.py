"""Killed anywhere and run again: the bytes of a run that nothing disturbed, and no committed text written twice."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enrich.settings import home
from tests.faults.ledger import Ledger
from tests.faults.scene import FULL
from tests.killing import Nursery, num_steps
from tests.runs import ROOT, column, output_of, read_rows, rows_of, texts_in, write_catalogue

KILLED = -signal.SIGKILL

# Rows by status are not compared here: bytes are.
FORMATS = ["catalog.parquet", "catalog.jsonl"]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery.open() as nursery:
        yield nursery


class Place:
    """A folder with a catalogue, in which runs are made and killed."""

    def __init__(self, nursery: Nursery, folder: Path, catalogue: Path, *flags: str | Path) -> None:
        folder.mkdir()
        self.catalogue = folder / catalogue.name
        shutil.copyfile(catalogue, self.catalogue)
        self.output = output_of(self.catalogue)
        self.state = folder / ".enrich"
        self.log = folder / "log"
        self._nursery = nursery
        self._arguments = ("run", self.catalogue, *flags)

    def run(self, **orders: object) -> int:
        """A run, after which no text that was committed before has been written again."""
        before = self.texts()
        status = self._nursery.run(*self._arguments, log=self.log, **orders)
        after = self.texts()
        assert {key: after.get(key) for key in before} == before
        return status

    def start(self, **orders: object) -> int:
        return self._nursery.start(*self._arguments, log=self.log, **orders)

    def texts(self) -> dict[tuple[bytes, int], tuple[int, str, int]]:
        memory = self.state / "memory.sqlite"
        # A journal lies there while the new memory turns to its log, before the first text; to read would mend it.
        if not memory.exists() or memory.with_name("memory.sqlite-journal").exists():
            return {}
        return texts_in(self.state)


def completions(place: Place) -> dict[tuple[bytes, int], str]:
    """Every attempt and what it said."""
    return {which: text for which, (_, text, _) in place.texts().items()}


def assert_absent_or(output: Path, published: bytes) -> None:
    assert not output.exists() or output.read_bytes() == published


@pytest.mark.parametrize(("name", "min_chars", "rounds"), [(FORMATS[0], 0, {0}), (FORMATS[1], 40, {0, 1, 2})])
def test_killed_before_any_step_a_second_run_gives_the_same_bytes(
    tmp_path: Path, nursery: Nursery, name: str, min_chars: int, rounds: set[int]
) -> None:
    """With `min_chars` many texts are too short: they are tried again twice, and held."""
    sample = ROOT / "samples" / name
    config = tmp_path / "enrich.toml"
    config.write_text(f"[quality]\nmin_chars = {min_chars}\n")
    echo = ("--engine", "echo", "--config", config)
    whole = Place(nursery, tmp_path / "whole", sample, *echo)
    assert whole.run() == 0
    published = whole.output.read_bytes()
    steps = num_steps(whole.log)
    assert steps > 60
    interrupted, killed_in = 0, set()
    chosen = range(1, steps + 1) if FULL else range(1 + steps % 3, steps + 1, 3)
    for step in chosen:
        place = Place(nursery, tmp_path / f"step{step}", sample, *echo)
        # How two threads share the last steps is not the same every time: a run may end before a late one.
        interrupted += place.run(kill_before=step) == KILLED
        begun = place.texts()
        if begun and len(begun) < len(whole.texts()):
            killed_in.add(max(attempt for _, attempt in begun))
        assert_absent_or(place.output, published)
        assert place.run() == 0, place.log.read_text()
        assert place.output.read_bytes() == published, step
        assert [path.name for path in place.output.parent.glob(".*.tmp")] == []
        assert completions(place) == completions(whole)
        shutil.rmtree(place.output.parent)
    assert interrupted >= len(chosen) - 3
    # The control: each round was once the last that had been begun, with texts still to come.
    assert killed_in == rounds == {attempt for _, attempt in whole.texts()}


@pytest.mark.parametrize("seed", range(6))
def test_runs_killed_one_after_another_arrive(tmp_path: Path, nursery: Nursery, seed: int) -> None:
    chance = random.Random(seed)
    sample = ROOT / "samples" / FORMATS[seed % 2]
    whole = Place(nursery, tmp_path / "whole", sample, "--engine", "echo")
    assert whole.run() == 0
    place = Place(nursery, tmp_path / "chain", sample, "--engine", "echo")
    killed = 0
    while killed < 8:
        killed += place.run(kill_before=chance.randrange(1, 60)) == KILLED
        assert_absent_or(place.output, whole.output.read_bytes())
        if killed == 4 and chance.random() < 0.5:
            place.output.unlink(missing_ok=True)
    assert place.run() == 0
    assert place.output.read_bytes() == whole.output.read_bytes()
    assert completions(place) == completions(whole)


def test_killed_from_outside_at_any_moment_a_second_run_gives_the_same_bytes(tmp_path: Path, nursery: Nursery) -> None:
    chance = random.Random(7)
    sample = ROOT / "samples" / "catalog.jsonl"
    whole = Place(nursery, tmp_path / "whole", sample, "--engine", "echo")
    assert whole.run() == 0
    # The first run of all is slower than the others.
    timed = Place(nursery, tmp_path / "timed", sample, "--engine", "echo")
    start = time.monotonic()
    assert timed.run() == 0
    takes = time.monotonic() - start
    killed = 0
    for number in range(25):
        place = Place(nursery, tmp_path / f"{number}", sample, "--engine", "echo")
        process_id = place.start()
        time.sleep(chance.random() * takes)
        os.kill(process_id, signal.SIGKILL)
        killed += nursery.wait(process_id) == KILLED
        assert_absent_or(place.output, whole.output.read_bytes())
        assert place.run() == 0
        assert place.output.read_bytes() == whole.output.read_bytes()
    assert killed >= 5


def test_a_killed_run_leaves_the_former_output_until_the_next_one_is_whole(tmp_path: Path, nursery: Nursery) -> None:
    place = Place(nursery, tmp_path / "a", ROOT / "samples" / "catalog.parquet", "--engine", "echo")
    assert place.run() == 0
    former = place.output.read_bytes()
    write_catalogue(place.catalogue, rows_of(40))
    for step in range(1, 200):
        if place.run(kill_before=step) != KILLED:
            break
        if place.output.read_bytes() != former:
            # Renamed, and killed before it was said to be durable: what lies there is whole nevertheless.
            assert column(place.output, "title") == [row["title"] for row in rows_of(40)]
    assert step > 20
    assert column(place.output, "title") == [row["title"] for row in rows_of(40)]


# --- signals and neighbours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_run_politely(tmp_path: Path, nursery: Nursery, number: signal.Signals) -> None:
    sample = ROOT / "samples" / "catalog.parquet"
    place = Place(nursery, tmp_path / "a", sample, "--engine", "echo")
    process_id = place.start(pause=0.02, batch_rows=8)
    while len(place.texts()) < 16:
        time.sleep(0.02)
    start = time.monotonic()
    os.kill(process_id, number)
    assert nursery.wait(process_id) == 75
    assert time.monotonic() - start < 20
    said = place.log.read_text()
    assert "run again, nothing is lost" in said
    assert "Traceback" not in said
    assert 16 <= len(place.texts()) < 130
    assert not place.output.exists()
    assert place.run() == 0
    whole = Place(nursery, tmp_path / "whole", sample, "--engine", "echo")
    assert whole.run() == 0
    assert place.output.read_bytes() == whole.output.read_bytes()


def test_of_two_runs_at_once_one_publishes_and_the_other_says_so(tmp_path: Path, nursery: Nursery) -> None:
    place = Place(nursery, tmp_path / "a", ROOT / "samples" / "catalog.parquet", "--engine", "echo")
    first = place.start(pause=0.01)
    while not place.texts():
        time.sleep(0.02)
    second_log = tmp_path / "second"
    second = nursery.start("run", place.catalogue, "--engine", "echo", log=second_log)
    assert nursery.wait(second) == 75
    assert "another run holds" in second_log.read_text()
    assert nursery.wait(first) == 0
    assert place.run() == 0


# --- the real model --------------------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.timeout(2400)
def test_a_model_killed_again_and_again_writes_what_an_undisturbed_one_writes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Twice in the suite, fifty times in `make test-faults`."""
    if not (home() / "models" / "smollm2-135m").is_dir():
        pytest.skip("the embedded model is not there: make model")
    config = tmp_path / "enrich.toml"
    config.write_text(
        "[text]\nmax_new_tokens = 8\nmax_prompt_tokens = 64\n[model]\nadapter = 'none'\n"
        "[machine]\nslots = 4\ndevice = 'cpu'\n"
        # Eight tokens of the bare base are no sentence. Half of them repeat the prompt, and are tried again.
        "[quality]\nretries = 1\nactions = { cut_off = 'publish' }\n"
    )
    rows = [
        {"title": f"{thing} {colour}", "description": None if place % 5 else "A text."}
        for place, (thing, colour) in enumerate(
            (thing, colour)
            for thing in ("Lamp", "Chair", "Garden hose 10 m")
            for colour in ("red", "green", "black", "white", "oak", "brass", "small", "large", "XL", "50 cm")
        )
    ]
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows)
    chance = random.Random(1)
    with Nursery.open(
        "enrich.engine.model", "enrich.engine.tiers", "transformers.models.llama.modeling_llama"
    ) as nursery:
        whole = Place(nursery, tmp_path / "whole", catalogue, "--config", config)
        assert whole.run() == 0, whole.log.read_text()
        killed = 0
        links = 5 if FULL else 1
        # Half of the chains stay in the first round, the others get into the second.
        for chain, commits in enumerate((1, -(-28 // links)) * (5 if FULL else 1)):
            place = Place(nursery, tmp_path / str(chain), catalogue, "--config", config)
            for link in range(links):
                # Right behind a commit, and at any time of the batch that follows.
                killed += place.run(kill_after=(commits, chance.random() * 0.8 if link % 2 else 0.0)) == KILLED
                assert not place.output.exists()
            assert {attempt for _, attempt in place.texts()} == ({0} if commits == 1 else {0, 1})
            assert len(place.texts()) < len(whole.texts())
            assert place.run() == 0, place.log.read_text()
            assert place.output.read_bytes() == whole.output.read_bytes()
            assert completions(place) == completions(whole)
            assert len({run for _, _, run in place.texts().values()}) > links
            Ledger(record_property).add("F2 kill -9 with the embedded model", fired=links, survived=links)
        assert killed == (50 if FULL else 2)
    found = read_rows(whole.output)
    texts = whole.texts()
    assert len({key for key, _ in texts}) == len(rows) - 6
    assert {attempt for _, attempt in texts} == {0, 1}
    assert [row["enrich_status"] == "kept" for row in found] == [place % 5 == 0 for place in range(30)]
    assert {row["enrich_status"] for row in found} <= {"kept", "generated", "held"}
    # The control: texts differ, so that equal bytes say something.
    assert len({row["description"] for row in found}) > 10
    assert len(set(completions(whole).values())) > 15
