"""Killed before any system call that changes the disk, and in the recovery too: the next run gives the same bytes."""

import os
import random
import signal
import time

import pytest

from tests.faults.ledger import Ledger
from tests.faults.places import MakeScene, Place, strike, strike_each
from tests.faults.scene import FULL, Scene, some
from tests.faults.strace import Call

KILLED = -signal.SIGKILL

Undisturbed = dict[Place, Call]


def test_killed_before_a_call(undisturbed: Undisturbed, scene: MakeScene, ledger: Ledger) -> None:
    cases = some(list(undisturbed), 14)
    for met in strike_each(cases, "signal=KILL", "F1 kill -9 before a system call", scene, ledger):
        assert met.run.status == KILLED, met
    assert len(undisturbed) >= 120


def test_killed_at_any_moment(scene: MakeScene, ledger: Ledger) -> None:
    """Wherever the process is: in a library, in a thread, between two calls."""
    chance, hits, wanted = random.Random(2), 0, 200 if FULL else 4

    def start() -> tuple[Scene, int]:
        struck = scene()
        return struck, struck.nursery.start(*struck.arguments, log=struck.log, pause=0.01, batch_rows=2)

    began = time.monotonic()
    struck, process = start()
    assert struck.nursery.wait(process) == 0
    length = time.monotonic() - began
    for _ in range(3 * wanted):
        if hits == wanted:
            break
        struck, process = start()
        time.sleep(chance.random() * length)
        os.kill(process, signal.SIGKILL)
        status = struck.nursery.wait(process)
        struck.assert_old_or_new(status)
        struck.assert_recovers(ledger, "F2 kill -9 at a random time", status == KILLED)
        hits += status == KILLED
    assert hits == wanted


@pytest.mark.parametrize("seed", range(50 if FULL else 3))
def test_the_recovery_is_killed_too(undisturbed: Undisturbed, scene: MakeScene, ledger: Ledger, seed: int) -> None:
    """Two to five kills in a row, each in what the one before left."""
    chance, struck, killed = random.Random(seed), scene(), 0
    for _ in range(chance.randrange(2, 6)):
        run = strike(struck, chance.choice(list(undisturbed)), "signal=KILL")
        struck.assert_old_or_new(run.status)
        killed += run.status == KILLED
    struck.assert_recovers(ledger, "F3 kill -9, and of the recovery", killed)
