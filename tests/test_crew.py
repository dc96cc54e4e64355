"""Processes that work beside this one: results in order, scripts without a guard run once, nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enrich.crew import Crew
from enrich.errors import IOFailure

from .runs import environment

SCRIPT = """
print("once", flush=True)
from enrich.crew import Crew
with Crew(2) as crew:
    print(list(crew.in_order(str.upper, ["a", "b", "c"])))
"""


def test_results_come_in_order_and_a_crew_of_one_works_here() -> None:
    words = [str(at) * 3 for at in range(50)]
    with Crew(2) as crew:
        assert list(crew.in_order(str.title, words)) == words
        assert list(crew.in_order(os.path.dirname, ["a/b", "c/d"])) == ["a", "c"]
        assert set(crew.in_order(_own_id, range(4), alone=True)) == {os.getpid()}
        assert os.getpid() not in set(crew.in_order(_own_id, range(4)))
    with Crew(1) as crew:
        assert set(crew.in_order(_own_id, range(4))) == {os.getpid()}


def _own_id(_: int) -> int:
    return os.getpid()


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["once", "['A', 'B', 'C']"]


def test_a_worker_that_is_killed_is_told() -> None:
    with Crew(2) as crew, pytest.raises(IOFailure, match="worker process was killed"):
        list(crew.in_order(_kill_own_process, range(3)))


def _kill_own_process(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_ignore_the_signals_of_a_stop_and_leave_with_a_parent_that_is_killed() -> None:
    code = (
        "import os, sys, time\nfrom enrich.crew import Crew\nfrom tests.test_crew import _own_id\n"
        "crew = Crew(2)\nprint(*set(crew.in_order(_own_id, range(8))), flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout:
        workers = [int(each) for each in parent.stdout.readline().split()]
        assert workers
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
            os.kill(worker, signal.SIGINT)
        time.sleep(0.3)
        assert all(map(_is_alive, workers))
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while any(map(_is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_is_alive, workers))


def _is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
