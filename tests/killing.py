"""Runs that can be killed at any step, many a second.

A nursery is a process that has imported the tool once and forks a fresh run whenever it is asked to. A run
counts what it does to the disk (opening for writing, renaming, removing, syncing, beginning and committing a
transaction, writing Parquet) and kills itself with SIGKILL before the step it was told, or a while after a commit.
"""

import ctypes
import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runs import ROOT, environment

_SYNCED = ("os.rename", "os.remove", "os.mkdir", "sqlite3.connect")
_PR_SET_PTRACER = 0x59616D61
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Nursery:
    """The parent's side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def open(cls, *modules: str) -> Iterator["Nursery"]:
        """`modules` are imported beside the command, so that a run finds them there."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.killing", *modules],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield cls(process)
            finally:
                process.stdin.close()  # type: ignore[union-attr]
                process.wait(60)

    def start(self, *arguments: str | Path, log: Path, **orders: Any) -> int:
        """Begins `enrich ARGUMENTS`, writing what it says to `log`; returns the process id. Orders:

        kill_before n: the n-th step of the run, from 1; kill_after (n, seconds): so long after its n-th commit of
        texts; batch_rows n, pause seconds: of the echo engine, the pause before each text; stopped: it stops itself
        before it begins, so that a tracer can be attached, until SIGCONT.
        """
        asked = {"arguments": [*map(str, arguments)], "log": str(log), **orders}
        return int(self._ask(asked))

    def wait(self, process_id: int) -> int:
        """The exit status; negative for the signal that ended it."""
        return int(self._ask(process_id))

    def run(self, *arguments: str | Path, log: Path, **orders: Any) -> int:
        return self.wait(self.start(*arguments, log=log, **orders))

    def _ask(self, what: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery is gone"
        return answer


def num_steps(log: Path) -> int:
    """How many steps a run made that ended by itself."""
    return int(log.read_text().rsplit("steps ", 1)[1])


def _serve(modules: list[str]) -> None:
    for module in ("enrich.cli", "enrich.night", *modules):
        importlib.import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]) if isinstance(asked, int) else _fork(asked)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _fork(asked: dict[str, Any]) -> int:
    process_id = os.fork()
    if process_id:
        return process_id
    status = 70
    try:
        status = _run(asked)
    finally:
        os._exit(status)


def _run(asked: dict[str, Any]) -> int:
    from enrich.cli import main

    # In the background of a shell, or under nohup, the tests were started with these ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    _configure_echo(asked.get("batch_rows", 8), asked.get("pause", 0.0))
    steps = _count_steps(asked.get("kill_before"))
    if asked.get("stopped"):
        _wait_for_tracer()
    if asked.get("kill_after"):
        _kill_after_commit(*asked["kill_after"])
    status = main(asked["arguments"])
    sys.stdout.write(f"steps {steps()}\n")
    sys.stdout.flush()
    return status


def _wait_for_tracer() -> None:
    # Where only descendants may be traced, this lets any process of ours do it.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


def _configure_echo(batch_rows: int, pause: float) -> None:
    from enrich.engine.protocol import EchoGenerator

    generate = EchoGenerator.generate

    def slowly(self: EchoGenerator, requests: Any) -> Any:
        for completion in generate(self, requests):
            time.sleep(pause)
            yield completion

    EchoGenerator.batch_rows = batch_rows
    if pause:
        EchoGenerator.generate = slowly  # type: ignore[method-assign]


def _count_steps(kill_before: int | None) -> Callable[[], int]:
    import pyarrow.parquet as pq

    made = 0

    def step() -> None:
        nonlocal made
        made += 1
        if made == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _SYNCED or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            step()

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **named: Any) -> Any:
            step()
            return function(*arguments, **named)

        return stepped

    def traced(statement: str) -> None:
        if statement.startswith(("BEGIN", "COMMIT")):
            step()

    connect = sqlite3.connect

    def connect_traced(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **named)
        connection.set_trace_callback(traced)
        return connection

    sys.addaudithook(audited)
    sqlite3.connect = connect_traced  # type: ignore[assignment]
    os.fsync = stepping(os.fsync)
    pq.ParquetWriter.write_table = stepping(pq.ParquetWriter.write_table)
    pq.ParquetWriter.close = stepping(pq.ParquetWriter.close)
    return lambda: made


def _kill_after_commit(number: int, seconds: float) -> None:
    from enrich.memory import Memory

    add = Memory.add
    committed = 0

    def add_and_die(self: Memory, *arguments: Any) -> None:
        nonlocal committed
        add(self, *arguments)
        committed += 1
        if committed == number:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()

    Memory.add = add_and_die  # type: ignore[method-assign]


if __name__ == "__main__":
    _serve(sys.argv[1:])
