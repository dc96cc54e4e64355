"""What a run finds around it: a catalogue that somebody edits, leftovers, another clock, little memory."""

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.ledger import Ledger
from tests.faults.limits import CHECKED, UNREAD
from tests.faults.places import MakeScene
from tests.faults.scene import some
from tests.faults.strace import wait_until_stopped
from tests.runs import command

CHANGED, IO_FAILURE = 65, 74

Edit = Callable[[Path], None]


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"id": 99, "title": "Another", "description": null}\n')


def same_size_and_time(path: Path) -> None:
    """Neither size nor time tells: only the content does."""
    times, content = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(content.replace(b"Product 7", b"Product X"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)


def reorder(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[3:6], *lines[:3], *lines[6:]]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(path.read_text().replace("Product", "Thing"))
    other.replace(path)


@pytest.mark.parametrize(
    "edit", [append, same_size_and_time, reorder, truncate, replace], ids=lambda edit: edit.__name__
)
def test_a_catalogue_edited_while_it_is_read_publishes_nothing(scene: MakeScene, ledger: Ledger, edit: Edit) -> None:
    noticed = 0
    for step in some(range(10, 46), 4):
        struck = scene()
        process = struck.nursery.start(*struck.arguments, log=struck.log, freeze_before=step, batch_rows=4)
        wait_until_stopped(process)
        content, phase = struck.catalogue.read_bytes(), (struck.folder / "frozen").read_text()
        edit(struck.catalogue)
        os.kill(process, signal.SIGCONT)
        status = struck.nursery.wait(process)
        between = phase not in (UNREAD, CHECKED)
        if between:
            assert status == CHANGED, (step, phase, struck.log.read_text())
            assert struck.output.read_bytes() == struck.former
        struck.catalogue.write_bytes(content)
        struck.assert_recovers(ledger, "F17 input changed while read", between)
        noticed += between
    assert noticed >= 2


def test_a_catalogue_that_vanishes(scene: MakeScene, ledger: Ledger) -> None:
    struck = scene()
    process = struck.nursery.start(*struck.arguments, log=struck.log, freeze_before=30, batch_rows=4)
    wait_until_stopped(process)
    content = struck.catalogue.read_bytes()
    struck.catalogue.unlink()
    os.kill(process, signal.SIGCONT)
    assert struck.nursery.wait(process) == IO_FAILURE
    assert struck.output.read_bytes() == struck.former
    struck.catalogue.write_bytes(content)
    struck.assert_recovers(ledger, "F17 input vanished", 1)


def test_leftovers_of_any_kind_are_written_over(scene: MakeScene, ledger: Ledger) -> None:
    """Files and links under every name that is not final, as a killed run of any version may leave them."""
    struck = scene()
    precious = struck.folder / "precious"
    precious.write_text("not ours")
    struck.state.mkdir()
    for place in (struck.output, struck.quarantine, struck.state / "memory.sqlite"):
        temp = place.with_name(f".{place.name}.tmp")
        temp.symlink_to(precious) if place == struck.output else temp.write_bytes(b"half" * 999)
    struck.assert_recovers(ledger, "F12 leftovers", 3)


def test_a_folder_that_is_not_there_is_made(scene: MakeScene, ledger: Ledger) -> None:
    struck = scene()
    output = struck.folder / "new" / "deeper" / "catalogue.enriched.parquet"
    assert struck.nursery.run(*struck.arguments, "--output", output, log=struck.log) == 0
    assert output.read_bytes() == struck.right[output.name]
    struck.assert_recovers(ledger, "F12 missing folder", 1)


@pytest.mark.parametrize("target", ["output", "state"])
def test_a_place_that_is_something_else_is_refused(scene: MakeScene, ledger: Ledger, target: str) -> None:
    """A folder where the file should be, and a file where the state should be."""
    struck = scene()
    if target == "output":
        struck.output.unlink()
        struck.output.mkdir()
    else:
        struck.state.write_text("no folder")
    assert struck.run() in (IO_FAILURE, 64, 78)
    assert "Traceback" not in struck.log.read_text()
    struck.output.rmdir() if target == "output" else struck.state.unlink()
    struck.assert_recovers(ledger, "F12 something else in place", 1)


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@pytest.mark.skipif(not FAKETIME.exists(), reason="needs libfaketime (Debian package faketime)")
@pytest.mark.parametrize("clock", some(["-1y", "+10y", "-1y x500", "+10y x0.01", "-30y", "+30y x2"], 2))
def test_a_wrong_clock_changes_no_byte(scene: MakeScene, ledger: Ledger, clock: str) -> None:
    """A year back, ten years on, running away, nearly standing still."""
    struck = scene()
    run = command(*struck.arguments, LD_PRELOAD=str(FAKETIME), FAKETIME=clock)
    assert run.returncode == 0, run.stderr
    assert struck.published() == struck.right
    # The control: the run did live in that time.
    (report,) = (struck.state / "reports").iterdir()
    assert report.name[:4] != time.strftime("%Y")
    struck.assert_recovers(ledger, "F16 a wrong clock", 1)


def test_too_little_memory_loses_nothing(scene: MakeScene, ledger: Ledger) -> None:
    """However far the run comes with it."""
    ended = set()
    for mebibytes in some([200, 400, 600, 800, 900, 1000, 1200, 1500, 2000, 4000], 3):
        struck = scene()
        run = command(*struck.arguments, limits={resource.RLIMIT_AS: mebibytes << 20})
        struck.assert_old_or_new(run.returncode)
        struck.assert_recovers(ledger, "F21 RLIMIT_AS", run.returncode != 0)
        ended.add(run.returncode == 0)
    assert ended == {False, True}
