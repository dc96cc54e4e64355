"""A polite stop: a signal sets a flag, and the run leaves by itself at the next batch.

Nothing is raised from a handler, so no transaction and no rename is torn. It does not know what is running.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_INSISTENT = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yields a question: has SIGTERM, SIGINT or SIGHUP asked us to stop?

    After a second SIGTERM or SIGINT the next one kills at once. The former handlers are back when the block
    ends. A signal that whoever started us chose to ignore (nohup) stays ignored. Outside the main thread,
    where Python allows no handlers, the answer is always no.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            _log(number)
        elif number in _INSISTENT:
            for insistent in _INSISTENT:
                signal.signal(insistent, signal.SIG_DFL)

    formers = {number: signal.getsignal(number) for number in _POLITE}
    caught = {number: former for number, former in formers.items() if former not in (signal.SIG_IGN, None)}
    try:
        for number in caught:
            signal.signal(number, ask)
        yield lambda: asked
    finally:
        for number, former in caught.items():
            signal.signal(number, former)


def _log(number: int) -> None:
    # A handler may interrupt a log line half written, and the stream then refuses this one.
    with suppress(Exception):
        logging.getLogger("enrich").warning(
            "%s: stopping after the batch in hand; the third such signal kills at once",
            signal.Signals(number).name,
        )
