"""Several workers, through Ray: the bytes of one alone, whoever is killed, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from enrich.cluster import CHUNK_ROWS
from tests.runs import ROOT, column, environment, output_of, read_rows, rows_of, texts_in, write_catalogue

ray = pytest.importorskip("ray")

WORKERS = 3
pytestmark = pytest.mark.timeout(240)


class Run:
    """`enrich run --gpus 3` with the echo engine, in a process of its own; it and all of its workers bear a mark."""

    def __init__(self, catalogue: Path, notes: Path, *flags: str, pause: float = 0.0, poison: str = "\1") -> None:
        self.mark, self.notes = uuid.uuid4().hex, notes
        notes.mkdir(exist_ok=True)
        variables = environment(
            MARK=self.mark, ECHO_PAUSE=str(pause), ECHO_NOTES=str(notes), ECHO_POISON=poison, RAY_DEDUP_LOGS="0"
        )
        besieged = str(ROOT / "tests" / "besieged_echo")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "enrich", "run", str(catalogue), "--engine", "echo", "--gpus", str(WORKERS), *flags],
            env=variables | {"PYTHONPATH": os.pathsep.join([str(ROOT), besieged])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self) -> tuple[int, str]:
        said = self.process.communicate(timeout=200)[0]
        return self.process.returncode, said

    def workers(self) -> list[int]:
        """The processes that write, by now."""
        return [process for process, name in self.processes() if name.startswith("ray::Worker")]

    def processes(self) -> Iterator[tuple[int, str]]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"MARK={self.mark}".encode() in (folder / "environ").read_bytes():
                    yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue

    def written(self) -> list[str]:
        """Every key that a worker wrote a text for, as often as one did."""
        return [line for file in self.notes.iterdir() for line in file.read_text().splitlines()]

    def wait_for(self, texts: int) -> None:
        while len(self.written()) < texts:
            assert self.process.poll() is None, self.wait()
            time.sleep(0.1)


def plain(catalogue: Path, folder: Path) -> bytes:
    """What one process makes of it."""
    alone = folder / catalogue.name
    folder.mkdir()
    alone.write_bytes(catalogue.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "enrich", "run", str(alone), "--engine", "echo"], env=environment(), check=False
    )
    assert done.returncode == 0
    return output_of(alone).read_bytes()


def test_workers_and_the_driver_are_killed_and_the_bytes_are_those_of_one(tmp_path: Path) -> None:
    """A worker every second, then the driver; nobody outlives it for long, and the next run goes on where it was."""
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(24_000))
    whole = plain(catalogue, tmp_path / "plain")
    run = Run(catalogue, tmp_path / "notes", pause=0.001)
    run.wait_for(500)
    killed = 0
    for _ in range(3):
        time.sleep(1)
        for worker in run.workers()[:1]:
            os.kill(worker, signal.SIGKILL)
            killed += 1
    run.wait_for(3000)
    run.process.kill()
    run.wait()
    before = texts_in(tmp_path / ".enrich")
    deadline = time.monotonic() + 30
    # Ray's own agents, which hold no model, may take longer on a busy machine.
    while run.workers():
        assert time.monotonic() < deadline, list(run.processes())
        time.sleep(0.2)
    assert killed == 3
    assert 0 < len(before) < 12_000

    again = Run(catalogue, tmp_path / "again")
    status, said = again.wait()
    assert status == 0, said
    assert output_of(catalogue).read_bytes() == whole
    after = texts_in(tmp_path / ".enrich")
    assert {key: after[key] for key in before} == before
    # What the driver had received is not written again, nor anything else but chunks in hand and copies of them.
    rewritten = Counter(again.written())
    assert not {key.hex() for key, _ in before} & rewritten.keys()
    assert sum(rewritten.values()) - len(rewritten) <= WORKERS * CHUNK_ROWS
    lost = Counter(run.written())
    assert sum(lost.values()) - len(lost) <= (killed + WORKERS) * 2 * CHUNK_ROWS


def test_the_one_product_that_kills_is_given_up_and_all_others_are_written(tmp_path: Path) -> None:
    rows = [{"title": title, "description": None} for title in ("Lamp", "DEADLY", "Cup")]
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows)
    status, said = Run(catalogue, tmp_path / "notes", poison="DEADLY").wait()
    assert status == 0, said
    assert "killed every worker that wrote it" in said
    found = [(row["title"], row["description"], row["enrich_status"]) for row in read_rows(output_of(catalogue))]
    assert found == [("Lamp", "Lamp", "generated"), ("DEADLY", None, "rejected"), ("Cup", "Cup", "generated")]
    assert column(output_of(catalogue), "enrich_flags")[1] == ["model_failed"]


def test_a_signal_ends_all_of_them_soon(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows_of(24_000))
    run = Run(catalogue, tmp_path / "notes", pause=0.002)
    run.wait_for(200)
    run.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    status, said = run.wait()
    assert (status, time.monotonic() - sent < 20) == (75, True), said
    assert "Traceback" not in said
    deadline = time.monotonic() + 30
    while run.workers():
        assert time.monotonic() < deadline
        time.sleep(0.2)
