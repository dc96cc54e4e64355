"""A first signal asks, a third one kills; nothing is raised, and what was there before comes back."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enrich.signals import stop_on_signals

POLITE = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

_RUN = """
import sys
from enrich.signals import stop_on_signals

with stop_on_signals() as asked_to_stop:
    print("ready", flush=True)
    while line := sys.stdin.readline():
        print(asked_to_stop(), flush=True)
print("left", flush=True)
"""


@pytest.fixture
def run() -> Iterator["subprocess.Popen[str]"]:
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", _RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:
        assert answer(process) == "ready"
        try:
            yield process
        finally:
            process.kill()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask(process: "subprocess.Popen[str]") -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


def send(process: "subprocess.Popen[str]", number: int) -> None:
    """Returns once the handler has run: the answer comes from the thread that runs handlers."""
    process.send_signal(number)
    ask(process)


@pytest.mark.parametrize("number", POLITE)
def test_one_signal_asks_and_the_process_leaves_by_itself(run: "subprocess.Popen[str]", number: int) -> None:
    assert ask(run) == "False"
    send(run, number)
    assert ask(run) == "True"
    out, err = run.communicate()
    assert (out, run.returncode) == ("left\n", 0)
    assert err.count("\n") == 1
    assert f"{signal.Signals(number).name}: stopping after the batch in hand" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_third_kills_at_once(run: "subprocess.Popen[str]", number: int) -> None:
    send(run, number)
    send(run, number)
    assert ask(run) == "True"
    run.send_signal(number)
    assert run.wait() == -number


def test_hang_ups_never_kill_nor_count_as_insisting(run: "subprocess.Popen[str]") -> None:
    for _ in range(5):
        send(run, signal.SIGHUP)
    send(run, signal.SIGTERM)
    assert ask(run) == "True"
    run.communicate()
    assert run.returncode == 0


@pytest.mark.parametrize("signals", [0, 1, 2])
def test_former_handlers_come_back(signals: int) -> None:
    former = {number: signal.getsignal(number) for number in POLITE}
    with suppress(ZeroDivisionError), stop_on_signals() as asked_to_stop:
        assert all(signal.getsignal(number) != handler for number, handler in former.items())
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
        assert asked_to_stop() == bool(signals)
        raise ZeroDivisionError
    assert {number: signal.getsignal(number) for number in POLITE} == former


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as asked_to_stop:
            signal.raise_signal(signal.SIGHUP)
            assert not asked_to_stop()
            signal.raise_signal(signal.SIGINT)
            assert asked_to_stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_log_that_fails_does_not_raise_from_the_handler() -> None:
    def refuse(_record: logging.LogRecord) -> None:
        raise RuntimeError("reentrant call")

    broken = logging.Handler()
    broken.emit = refuse  # type: ignore[method-assign]
    logging.getLogger("enrich").addHandler(broken)
    try:
        with stop_on_signals() as asked_to_stop:
            signal.raise_signal(signal.SIGTERM)
            assert asked_to_stop()
    finally:
        logging.getLogger("enrich").removeHandler(broken)


def test_only_the_first_signal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with stop_on_signals():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    assert [(record.name, record.levelname) for record in caplog.records] == [("enrich", "WARNING")]
    assert caplog.messages[0].startswith("SIGHUP: stopping")


def test_outside_the_main_thread_it_does_nothing() -> None:
    former = {number: signal.getsignal(number) for number in POLITE}
    seen: list[object] = []

    def work() -> None:
        with stop_on_signals() as asked_to_stop:
            seen.append(asked_to_stop())
            seen.append({number: signal.getsignal(number) for number in POLITE})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, former]
