"""Two runs at once, and the lock between them: one publishes, the other says so, whatever becomes of the lock."""

import os
import signal
import time
from collections.abc import Sequence

import pytest

from tests.faults.ledger import Ledger
from tests.faults.places import MakeScene
from tests.faults.scene import FULL, Scene, some
from tests.faults.strace import wait_until_stopped

BUSY = 75


@pytest.mark.parametrize("delay", some([n / 30 for n in range(50)], 3))
def test_of_two_runs_one_publishes(scene: MakeScene, ledger: Ledger, delay: float) -> None:
    """Whichever takes the lock: the later run finds it held, or the earlier one gone."""
    struck = scene()
    second_log = struck.folder / "second"
    first = struck.nursery.start(*struck.arguments, log=struck.log, pause=0.2, batch_rows=2)
    time.sleep(delay)
    second = struck.nursery.start(*struck.arguments, log=second_log)
    statuses = [struck.nursery.wait(process) for process in (first, second)]
    assert sorted(statuses) in ([0, BUSY], [0, 0]), (struck.log.read_text(), second_log.read_text())
    second_log.unlink()
    assert struck.published() == struck.right
    struck.assert_recovers(ledger, "F13 two runs at once", statuses.count(BUSY))
    assert BUSY in statuses


def frozen(struck: Scene, step: int) -> int:
    """A run that has stopped itself before that step."""
    process = struck.nursery.start(*struck.arguments, log=struck.log, freeze_before=step, batch_rows=2)
    wait_until_stopped(process)
    return process


STEPS: Sequence[int] = some(range(12, 36), 2)


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_stopped_keeps_the_lock(scene: MakeScene, ledger: Ledger, step: int) -> None:
    struck = scene()
    process = frozen(struck, step)
    assert struck.nursery.run(*struck.arguments, log=struck.folder / "second") == BUSY
    os.kill(process, signal.SIGCONT)
    assert struck.nursery.wait(process) == 0
    assert struck.published() == struck.right
    struck.assert_recovers(ledger, "F14 a stopped run keeps the lock", 1)


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_run_frees_the_lock(scene: MakeScene, ledger: Ledger, step: int) -> None:
    struck = scene()
    process = frozen(struck, step)
    os.kill(process, signal.SIGKILL)
    struck.nursery.wait(process)
    struck.assert_recovers(ledger, "F14 a killed run frees the lock", 1)


@pytest.mark.parametrize("step", STEPS)
def test_a_lock_that_was_deleted_gives_no_two_publishers(scene: MakeScene, ledger: Ledger, step: int) -> None:
    """The run that held it finds out before it publishes; what the other published stays."""
    struck = scene()
    process = frozen(struck, step)
    (struck.state / "lock").unlink()
    # Another catalogue, so that the two would not publish the same.
    content = struck.catalogue.read_bytes()
    struck.catalogue.write_bytes(content.replace(b"Product 7", b"Product seven"))
    assert struck.nursery.run(*struck.arguments, log=struck.folder / "second") == 0
    others = struck.output.read_bytes()
    struck.catalogue.write_bytes(content)
    os.kill(process, signal.SIGCONT)
    # It may find the spool gone before it looks at the lock.
    assert struck.nursery.wait(process) in (65, 74, BUSY), struck.log.read_text()
    assert struck.output.read_bytes() == others != struck.right[struck.output.name]
    struck.assert_recovers(ledger, "F14 the lock was deleted", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_run_soon_and_loses_nothing(scene: MakeScene, ledger: Ledger, number: int) -> None:
    polite = 0
    moments = [n * 0.02 for n in range(50)] if FULL else [0.1, 0.5]
    for moment in moments:
        struck = scene()
        process = struck.nursery.start(*struck.arguments, log=struck.log, pause=0.06, batch_rows=2)
        while not (struck.state / "lock").exists():
            time.sleep(0.005)
        time.sleep(moment)
        os.kill(process, number)
        sent = time.monotonic()
        status = struck.nursery.wait(process)
        assert time.monotonic() - sent < 20
        # Before it listens a run has nothing to lose; afterwards it may be done.
        assert status in (BUSY, -number, 0), struck.log.read_text()
        struck.assert_old_or_new(status)
        struck.assert_recovers(ledger, f"F15 {signal.Signals(number).name}", status == BUSY)
        polite += status == BUSY
    assert polite >= len(moments) / 2
