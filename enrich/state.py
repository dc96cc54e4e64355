"""The state folder of a run: the memory's place, the lock, the spool and the reports.

It promises one writer at a time, whatever is killed, stopped, forked or deleted meanwhile. It knows no
catalogue, and never opens what lies in the folder but the lock.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from enrich.errors import Busy, IOFailure, SettingsError

_TRIES = 3
_SECOND = "%Y%m%dT%H%M%SZ"

# Descriptors of locks held by this process. flock belongs to the open file, which a forked child shares: a
# worker that outlives a killed run would keep the next one out.
_held: set[int] = set()


def _let_go_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


class State:
    """The folder, which is made (0700) on first use; naming it writes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def memory(self) -> Path:
        """Where the memory is or will be."""
        return self.folder / "memory.sqlite"

    @property
    def lock(self) -> Path:
        """The file that the holder locks. It stays for ever: deleting it would let a second holder in."""
        return self.folder / "lock"

    @property
    def spool(self) -> Path:
        """Where parsed catalogues wait; exists while the state is locked."""
        return self.folder / "spool"

    @property
    def reports(self) -> Path:
        """One folder a run lies in here."""
        return self.folder / "reports"

    @contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Holds the lock until the block ends, however it ends.

        Yields a check to call before anything is published: it raises `Busy` when the lock file was deleted
        or replaced since, because then another run may hold its successor.

        Raises `Busy` at once when another run holds it, `SettingsError` when the folder is another user's or
        no folder, `IOFailure` when it cannot be written or locked.
        """
        _make_private(self.folder)
        _make_private(self.spool)
        descriptor = self._acquire()
        _held.add(descriptor)
        try:
            yield lambda: self._check_held(descriptor)
        finally:
            if descriptor in _held:
                _held.remove(descriptor)
                os.close(descriptor)

    def new_report(self) -> Path:
        """Makes the folder of a new report, named by the UTC second so that names sort by time."""
        second = datetime.now(UTC).strftime(_SECOND)
        _make_private(self.reports)
        for number in count(1):
            report = self.reports / (second if number == 1 else f"{second}-{number:03}")
            try:
                report.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unwritable(report, error) from error
            break
        return report

    def newest_reports(self) -> list[Path]:
        """The folders of all reports, the newest first."""
        return sorted(self.reports.glob("[0-9]*T[0-9]*Z*"), reverse=True)

    def last_report(self) -> Path | None:
        """The newest report by name, or None."""
        return next(iter(self.newest_reports()), None)

    def _acquire(self) -> int:
        for _ in range(_TRIES):
            descriptor = _open_lock(self.lock)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Deleted between open and flock, it would be a lock that nobody else sees.
                if _is_at(self.lock, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise Busy(f"another run holds {self.lock}: wait for it to end, or name another state folder") from None
            except OSError as error:
                os.close(descriptor)
                raise _unwritable(self.lock, error) from error
            os.close(descriptor)
        raise Busy(f"{self.lock}: something keeps deleting it: leave it in place and run again")

    def _check_held(self, descriptor: int) -> None:
        if not _is_at(self.lock, descriptor):
            raise Busy(f"{self.lock}: deleted or replaced while this run held it: leave it in place and run again")


def began(report: Path) -> datetime:
    """When the run of a report began, to the second, in UTC. Raises `ValueError` when its name does not say so."""
    return datetime.strptime(report.name[:16], _SECOND).replace(tzinfo=UTC)


def _open_lock(path: Path) -> int:
    if path.is_symlink():
        raise SettingsError(f"{path}: a link where the lock should be: remove it")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except FileExistsError:
        raise SettingsError(f"{folder}: not a folder: name another state folder") from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    if found.st_uid not in (os.geteuid(), 0):
        raise SettingsError(f"{folder}: belongs to user {found.st_uid}: name a state folder of your own")
    if found.st_mode & stat.S_IWOTH:
        raise SettingsError(f"{folder}: everybody may write into it: chmod o-w, or name another state folder")


def _unwritable(path: Path, error: OSError) -> IOFailure:
    return IOFailure(f"{path}: {error.strerror}: check space and permissions, or name another state folder")
