"""A disk that fails, at each system call in turn, once and for good: the old output or the new one, never another;
status 74; and the next run is as if nothing had happened."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import Ledger
from tests.faults.places import MakeScene, Place, strike_each, where
from tests.faults.scene import FULL, Scene, some
from tests.faults.strace import RENAMES, SYNCS, WRITES, Call
from tests.runs import command

Undisturbed = dict[Place, Call]

IO_FAILURE = 74
OUTPUT = "/.catalogue.enriched.parquet.tmp"
# Without the page a run is whole; it only says that it could not draw it.
PAGE = "/.enrich/reports/*/.report.html.tmp"


def is_sqlite_s(place: Place) -> bool:
    """Whether SQLite does it. It syncs a file that is thrown away once more, and moves out of its log, when it closes,
    only what an earlier sync had confirmed; what it syncs of the folder it asks nobody about."""
    return place.file.startswith(("/.enrich/memory.sqlite", "/.enrich/.memory.sqlite")) or place.call == "fdatasync"


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO"])
def test_a_write_fails(undisturbed: Undisturbed, scene: MakeScene, ledger: Ledger, error: str, for_good: bool) -> None:
    cases = some(where(undisturbed, WRITES), 4)
    kind = f"F4 {error} on write, {'for good' if for_good else 'once'}"
    for met in strike_each(cases, f"error={error}", kind, scene, ledger, for_good=for_good):
        # Where the kernel cannot copy a file, Python does it by itself, unless the disk is full.
        is_copied_otherwise = met.place.call == "sendfile" and error != "ENOSPC"
        assert met.run.status == IO_FAILURE or met.place.file == PAGE or is_copied_otherwise, met


def test_a_sync_fails(undisturbed: Undisturbed, scene: MakeScene, ledger: Ledger) -> None:
    """The run says so, and never asks again for what the kernel may have thrown away."""
    cases = some(where(undisturbed, SYNCS), 8)
    for met in strike_each(cases, "error=EIO", "F5 EIO on fsync", scene, ledger):
        of_folder = met.place.file == "/.enrich" and is_sqlite_s(met.place)
        of_report = met.place.file == PAGE or met.place == ("/.enrich/reports/*", "fsync", 2)
        assert met.run.status == IO_FAILURE or of_folder or of_report, met
        if not is_sqlite_s(met.place):
            failed = next(at for at, call in enumerate(met.run.calls) if call.injected)
            same = met.run.calls[failed].path
            assert [call for call in met.run.calls[failed + 1 :] if call.path == same] == [], met


@pytest.mark.parametrize("error", ["EXDEV", "ENOSPC", "EACCES"])
def test_a_rename_fails(undisturbed: Undisturbed, scene: MakeScene, ledger: Ledger, error: str) -> None:
    cases = some(where(undisturbed, RENAMES), 2)
    for met in strike_each(cases, f"error={error}", "F6 rename fails", scene, ledger):
        assert met.run.status == IO_FAILURE or met.place.file == PAGE, met


def test_a_close_fails(scene: MakeScene, ledger: Ledger) -> None:
    for met in strike_each([Place(OUTPUT, "close", 1)], "error=EIO", "F7 EIO on close", scene, ledger):
        assert met.run.status == IO_FAILURE, met


def test_the_catalogue_cannot_be_read(scene: MakeScene, ledger: Ledger) -> None:
    cases = some([Place("/catalogue.jsonl", "read", number) for number in range(1, 8)], 3)
    for met in strike_each(cases, "error=EIO", "F7 EIO on reading the input", scene, ledger):
        assert met.run.status == IO_FAILURE, met


def test_a_write_lies(undisturbed: Undisturbed, scene: MakeScene, ledger: Ledger) -> None:
    """The disk says that it wrote, and did not: what is read back is not what was written."""
    sizes = {
        place: call.result for place, call in undisturbed.items() if place.file == OUTPUT and place.call == "write"
    }
    for place, size in some(list(sizes.items()), 3):
        for met in strike_each([place], f"retval={size}", "F10 a lying write", scene, ledger):
            assert met.run.status == IO_FAILURE, met


def test_no_file_may_grow_beyond_a_size(scene: MakeScene, ledger: Ledger) -> None:
    """The kernel's signal for it kills nobody."""
    largest = 1 << 17
    statuses = set()
    for percent in some([1, 2, 4, 6, 8, 12, 16, 20, 25, 30, 50, 100], 4):
        struck = scene()
        run = command(*struck.arguments, limits={resource.RLIMIT_FSIZE: largest * percent // 100})
        assert run.returncode in (0, IO_FAILURE), run.stderr
        assert "Traceback" not in run.stderr
        struck.assert_old_or_new(run.returncode)
        struck.assert_recovers(ledger, "F9 RLIMIT_FSIZE", run.returncode == IO_FAILURE)
        statuses.add(run.returncode)
    assert statuses == {0, IO_FAILURE}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount a tmpfs on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    unmount(folder)
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def unmount(folder: Path) -> None:
    # Lazily: whoever still ends may have a file of it open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_small_disk_is_full(first_scene: Scene, small_disk: Path, ledger: Ledger) -> None:
    """A real one, from a hundredth of what a run needs to all of it; with more room the next run arrives."""
    need_kib, statuses = 512, set()
    for percent in some([5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80, 100], 4):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={need_kib * percent // 100}k", "none", str(small_disk)], check=True
        )
        try:
            struck = first_scene.on(small_disk)
        except OSError:
            # Not even the catalogue finds room.
            unmount(small_disk)
            continue
        run = command(*struck.arguments)
        assert run.returncode in (0, IO_FAILURE), (percent, run.stderr)
        assert "Traceback" not in run.stderr
        struck.assert_old_or_new(run.returncode)
        statuses.add(run.returncode)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        struck.assert_recovers(ledger, "F8 a real small disk", run.returncode == IO_FAILURE)
        unmount(small_disk)
    assert statuses == {0, IO_FAILURE}
    assert FULL or statuses
