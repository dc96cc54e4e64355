"""Runs whose system calls fail, or are the last, exactly where they are told to: `strace -e inject`.

A fault counts only when strace says that it injected it.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.killing import Nursery

# What changes a file, or makes it durable, and what reads one.
WRITES = ("write", "pwrite64", "writev", "ftruncate", "sendfile", "copy_file_range")
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
READS = ("read", "pread64")
CHANGES = (*WRITES, *SYNCS, *RENAMES, "unlink", "unlinkat", "mkdir", "mkdirat")

_CALL = re.compile(r"^(\d+)\s+(\w+)\(")
_PATH = re.compile(r'[<"](/[^>"]*)[>"]')


@dataclass(frozen=True)
class Call:
    """A system call: its name, the thread that made it, the first path it names, and the line that strace wrote."""

    name: str
    thread: int
    path: str
    line: str

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.line

    @property
    def result(self) -> int:
        return int(self.line.rsplit("= ", 1)[1].split()[0])


@dataclass(frozen=True)
class Traced:
    """How a run ended (negative: the signal that killed it), what it said, and the calls it made, in order."""

    status: int
    said: str
    calls: list[Call]

    @property
    def fired(self) -> int:
        return sum(call.injected for call in self.calls)


def traced(
    nursery: Nursery,
    arguments: Sequence[str | Path],
    *,
    log: Path,
    calls: Sequence[str],
    paths: Sequence[Path] = (),
    inject: str | None = None,
) -> Traced:
    """A run under strace, which is told of `calls` on `paths` alone (all paths when there are none).

    `inject` is strace's own: `fsync:error=EIO:when=3` is the third fsync of a thread on those paths, `when=3+` that and
    all that follow.
    """
    process = nursery.start(*arguments, log=log, stopped=True)
    wait_until_stopped(process)
    trace = log.with_suffix(".strace")
    named = ",".join(f"?{call}" for call in calls)
    what = ["-e", f"trace={named}", *(["-e", f"inject={inject}"] if inject else [])]
    only = [flag for path in paths for flag in ("-P", str(path))]
    with subprocess.Popen(
        ["strace", "-f", "-y", "-s", "0", "-o", str(trace), *what, *only, "-p", str(process)],
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stderr is not None
        assert "attached" in (line := _line_that_matters(tracer.stderr)), line
        os.kill(process, signal.SIGCONT)
        status = nursery.wait(process)
        tracer.stderr.read()
    return Traced(status, log.read_text(errors="replace"), _calls_in(trace.read_text(errors="replace")))


def _line_that_matters(stream) -> str:  # type: ignore[no-untyped-def]
    for line in stream:
        if "Requested path" not in line:
            return str(line)
    return ""


def wait_until_stopped(process: int) -> None:
    """Returns once a run has stopped itself."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline, "the run does not stop"
        time.sleep(0.002)


def _calls_in(trace: str) -> list[Call]:
    found, unfinished = [], {}
    for line in trace.splitlines():
        thread = line.split(" ", 1)[0]
        # Of a call that another thread interrupted the end comes in a line of its own.
        if "<unfinished ...>" in line:
            unfinished[thread] = line.replace(" <unfinished ...>", "")
            continue
        if "<... " in line and thread in unfinished:
            line = unfinished.pop(thread) + line.split("resumed>", 1)[1]
        if match := _CALL.match(line):
            path = _PATH.search(line)
            found.append(Call(match[2], int(match[1]), path[1] if path else "", line))
    return found
