"""One holder of a state folder at a time, whatever happens to the process or the lock file."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from enrich import state as state_module
from enrich.errors import Busy, IOFailure, SettingsError
from enrich.state import State

# Holds the lock and says so; then does what its first line of input tells it.
_HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from enrich.errors import Busy
from enrich.state import State

try:
    with State(Path(sys.argv[1])).locked() as check_held:
        print("held", flush=True)
        order = sys.stdin.readline().strip()
        if order == "spawn":
            child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
            print(child.pid, flush=True)
        elif order == "fork":
            child = os.fork()
            if not child:
                # Said by the child itself, once it is past everything that a fork runs.
                print(os.getpid(), flush=True)
                time.sleep(60)
        elif order == "fork and leave":
            child = os.fork()
            if not child:
                # Takes the number that the lock had here; leaving the block must not close a stranger.
                stranger = os.open(os.devnull, os.O_RDONLY)
                sys.exit(0)
            print("child left with", os.waitpid(child, 0)[1], flush=True)
        sys.stdin.readline()
        check_held()
        print("published", flush=True)
except SystemExit:
    os.fstat(stranger)
    raise
except Busy as error:
    print("busy:", error, flush=True)
    sys.exit(75)
"""


@contextmanager
def other_run(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def hears(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: "subprocess.Popen[str]", order: str) -> None:
    assert process.stdin is not None
    process.stdin.write(order + "\n")
    process.stdin.flush()


def is_free(folder: Path) -> bool:
    try:
        with State(folder).locked():
            return True
    except Busy:
        return False


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


def test_a_second_run_is_busy_until_the_first_ends(folder: Path) -> None:
    with other_run(folder) as first:
        assert hears(first) == "held"
        with pytest.raises(Busy, match=r"another run holds .*lock: wait for it"), State(folder).locked():
            pass
        with other_run(folder) as second:
            assert hears(second).startswith("busy: another run holds")
            assert second.wait() == 75
        tell(first, "")
        tell(first, "")
        assert hears(first) == "published"
        assert first.wait() == 0
    assert is_free(folder)


def test_two_states_of_one_process_exclude_each_other_too(folder: Path) -> None:
    with State(folder).locked():
        assert not is_free(folder)
    assert is_free(folder)


def test_an_exception_frees_the_lock_and_the_file_stays(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), State(folder).locked():
        raise ZeroDivisionError
    inode = State(folder).lock.stat().st_ino
    assert is_free(folder)
    assert State(folder).lock.stat().st_ino == inode


def test_kill_9_of_the_holder_frees_it(folder: Path) -> None:
    with other_run(folder) as holder:
        assert hears(holder) == "held"
        assert not is_free(folder)
        holder.kill()
        holder.wait()
    assert is_free(folder)


@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_a_child_that_outlives_its_run_does_not_keep_the_lock(folder: Path, way: str) -> None:
    with other_run(folder) as holder:
        assert hears(holder) == "held"
        tell(holder, way)
        child = int(hears(holder))
        try:
            assert not is_free(folder)
            holder.kill()
            holder.wait()
            os.kill(child, 0)
            assert is_free(folder)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_does_not_free_its_parents_lock(folder: Path) -> None:
    with other_run(folder) as holder:
        assert hears(holder) == "held"
        tell(holder, "fork and leave")
        assert hears(holder) == "child left with 0"
        assert not is_free(folder)


def test_a_stopped_holder_keeps_it(folder: Path) -> None:
    with other_run(folder) as holder:
        assert hears(holder) == "held"
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        assert not is_free(folder)
        os.kill(holder.pid, signal.SIGCONT)
        tell(holder, "")
        tell(holder, "")
        assert hears(holder) == "published"


def test_of_two_runs_with_a_deleted_lock_file_only_the_later_publishes(folder: Path) -> None:
    with other_run(folder) as first:
        assert hears(first) == "held"
        State(folder).lock.unlink()
        with other_run(folder) as second:
            assert hears(second) == "held"
            for run in (first, second):
                tell(run, "")
                tell(run, "")
            assert hears(first).startswith("busy:")
            assert hears(second) == "published"


@pytest.mark.parametrize("way", ["unlink", "replace", "folder"])
def test_the_check_tells_a_holder_that_its_lock_is_gone(folder: Path, way: str) -> None:
    state = State(folder)
    with state.locked() as check_held:
        check_held()
        if way == "unlink":
            state.lock.unlink()
        elif way == "replace":
            (folder / "new").touch()
            (folder / "new").replace(state.lock)
        else:
            folder.rename(folder.with_name("moved"))
        with pytest.raises(Busy, match="deleted or replaced"):
            check_held()


@pytest.mark.parametrize("times", [1, 100])
def test_a_file_deleted_between_open_and_lock_is_not_taken_for_the_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    state = State(folder)
    deletions = 0

    def deleting_flock(descriptor: int, operation: int) -> None:
        nonlocal deletions
        if deletions < times:
            deletions += 1
            state.lock.unlink()
        fcntl.flock(descriptor, operation)

    class Fcntl:
        LOCK_EX, LOCK_NB, flock = fcntl.LOCK_EX, fcntl.LOCK_NB, staticmethod(deleting_flock)

    monkeypatch.setattr(state_module, "fcntl", Fcntl)
    before = open_files()
    if times == 1:
        with state.locked() as check_held:
            check_held()
            monkeypatch.undo()
            assert not is_free(folder)
    else:
        with pytest.raises(Busy, match="keeps deleting it"), state.locked():
            pass
    assert open_files() == before


def test_a_file_system_without_locks_is_an_io_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fcntl:
        LOCK_EX, LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_NB

        @staticmethod
        def flock(_descriptor: int, _operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(state_module, "fcntl", Fcntl)
    with pytest.raises(IOFailure, match="lock: No locks available"), State(folder).locked():
        pass


def test_naming_a_state_writes_nothing_and_locking_makes_it_private(folder: Path) -> None:
    state = State(folder)
    assert state.last_report() is None
    assert not folder.parent.exists()
    old = os.umask(0)
    try:
        with state.locked():
            state.new_report()
    finally:
        os.umask(old)
    folders = [folder, state.spool, state.reports, *state.reports.iterdir()]
    assert {stat.S_IMODE(made.stat().st_mode) for made in folders} == {0o700}
    assert stat.S_IMODE(state.lock.stat().st_mode) == 0o600
    assert state.memory == folder / "memory.sqlite"


def test_a_folder_that_was_there_keeps_its_mode(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    assert is_free(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_strange_places_are_refused_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    folder.touch()
    with pytest.raises(SettingsError, match="not a folder"), State(folder).locked():
        pass
    with pytest.raises(IOFailure, match="Not a directory"), State(folder / "below").locked():
        pass
    folder.unlink()
    folder.mkdir()
    (folder / "lock").symlink_to(folder / "elsewhere")
    with pytest.raises(SettingsError, match="a link where the lock should be"), State(folder).locked():
        pass
    assert not (folder / "elsewhere").exists()
    (folder / "lock").unlink()
    (folder / "lock").mkdir()
    with pytest.raises(IOFailure, match="lock: Is a directory"), State(folder).locked():
        pass


def test_another_user_s_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert is_free(folder)
        os.chown(folder, 4321, -1)
    with pytest.raises(SettingsError, match="belongs to user"), State(folder).locked():
        pass


def test_reports_of_one_second_are_different_folders_that_sort_by_age(folder: Path) -> None:
    state = State(folder)
    before = datetime.now(UTC).replace(microsecond=0)
    reports = [state.new_report() for _ in range(15)]
    assert sorted(reports) == reports
    assert len(set(reports)) == 15
    assert state.last_report() == reports[-1]
    second = datetime.strptime(reports[0].name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert before <= second <= datetime.now(UTC)
    (state.reports / "notes").mkdir()
    assert state.last_report() == reports[-1]
