"""Further orders to the runs of a nursery, for `Nursery.open("tests.faults.limits")`:

max_file_bytes n: no file that the run writes grows beyond n bytes, as if the disk were full. Its log may be a named
pipe, which has room still.

freeze_before n, freeze_from phase: the run stops itself (SIGSTOP) before its n-th step, counted from that phase on if
one is named. Steps are opening its catalogue, opening another file for writing, renaming, removing, making a folder,
connecting to its memory, adding a batch of texts to it; the first of all is to open its log. Beside that it leaves a
file `frozen`, which says the phase.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# How far a run has come: it has not looked at its catalogue; it has; it has begun to write its output; it has looked
# for the last time whether the catalogue is still the same.
PHASES = UNREAD, READ, WRITING, CHECKED = "unread", "read", "writing", "checked"

_STEPS = ("os.rename", "os.remove", "os.mkdir", "sqlite3.connect")
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _limit(max_bytes: int, log: str) -> None:
    # Python ignores SIGXFSZ, so that the write fails instead.
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    if Path(log).is_fifo():
        # The nursery's streams may be files and ask for their place, which a pipe does not have.
        pipe = os.open(log, os.O_WRONLY)
        sys.stdout, sys.stderr = (open(pipe, "w", buffering=1, closefd=False) for _ in range(2))  # noqa: SIM115


class _Freezer:
    """Counts the steps of this process and stops it before the one that was asked for."""

    def __init__(self, phase: str, step: int, catalogue: str, told: Path) -> None:
        self._from, self._left = PHASES.index(phase), step
        self._catalogue, self._told = catalogue, told
        self._phase = UNREAD

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self._open(arguments[0], arguments[2])
        elif event in _STEPS:
            self.step()

    def step(self) -> None:
        self._left -= PHASES.index(self._phase) >= self._from
        if self._left == 0:
            self._left = -1
            self._told.write_text(self._phase)
            os.kill(os.getpid(), signal.SIGSTOP)

    def _open(self, path: Any, flags: Any) -> None:
        name = "" if isinstance(path, int) else os.fsdecode(path)
        if name == self._catalogue:
            self.step()
            self._phase = CHECKED if self._phase in (WRITING, CHECKED) else READ
        elif isinstance(flags, int) and flags & _TO_WRITE:
            self.step()
            if name.endswith(".enriched.parquet.tmp"):
                self._phase = WRITING


def _freeze(phase: str, step: int, asked: dict[str, Any]) -> None:
    from enrich.memory import Memory

    freezer = _Freezer(phase, step, asked["arguments"][1], Path(asked["log"]).with_name("frozen"))
    add = Memory.add

    def add_in_step(self: Memory, *arguments: Any) -> None:
        freezer.step()
        add(self, *arguments)

    Memory.add = add_in_step  # type: ignore[method-assign]
    sys.addaudithook(freezer.audit)


def _with_orders(run: Callable[[dict[str, Any]], int]) -> Callable[[dict[str, Any]], int]:
    def run_with_orders(asked: dict[str, Any]) -> int:
        if "max_file_bytes" in asked:
            _limit(asked["max_file_bytes"], asked["log"])
        if "freeze_before" in asked:
            _freeze(asked.get("freeze_from", UNREAD), asked["freeze_before"], asked)
        return run(asked)

    return run_with_orders


# The nursery is the main module of its process, and looks up what to run when it has forked.
_nursery = sys.modules["__main__"]
if hasattr(_nursery, "_fork"):
    _nursery._run = _with_orders(_nursery._run)  # type: ignore[attr-defined]
