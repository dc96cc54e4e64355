"""Several cards, of this machine or of a Ray cluster: each holds the model, writes chunks of texts and judges them.

The driver alone reads the catalogue and writes the memory. A worker that dies costs what it had in hand, and is
replaced; how many there are, and which of them wrote a text, can never be seen in a text.
"""

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from enrich import __version__
from enrich.author import Author
from enrich.chunks import Board
from enrich.crew import num_cores
from enrich.engine.protocol import Figures
from enrich.errors import EnrichError, ModelUnavailable, Stopped
from enrich.memory import Entry, Memory
from enrich.plan import Wanted
from enrich.verdicts import verdict_on
from enrich.worker import Told, Worker, files_of
from enrich.writer import Finished, num_judges

log = logging.getLogger("enrich")

# Products of a chunk: a few seconds of a card's work.
CHUNK_ROWS = 2048
# So many products wait at a worker to be begun, at least: some seconds of work, in which the driver looks at it again.
_ROWS_WAITING = 2 * CHUNK_ROWS
_SECONDS_BETWEEN_LOOKS = 0.5
# One that dies so often in a row before it says a word is not replaced any more.
_STILLBORN = 3
_OBJECT_STORE_BYTES = 1 << 30


@dataclass
class _Hand:
    """A worker as the driver knows it."""

    name: str
    actor: Any = None
    telling: Any = None
    node: str = ""
    device: str | None = None
    # Products given to its process, and begun by it.
    given: int = 0
    begun: int = 0
    texts: int = 0
    tokens: int = 0
    deaths: int = 0
    stillborn: int = 0
    # Of each process that had the name.
    figures: list[Figures] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        """Whether its process has said a word and was not ended since."""
        return self.actor is not None and bool(self.node)

    def told(self) -> dict[str, object]:
        """For the report."""
        kept = ("name", "node", "device", "texts", "tokens", "deaths")
        return {each: getattr(self, each) for each in kept}


class Cluster:
    """Takes the place of a `Writer`: the same questions, answered by many. Ray is started by the first text."""

    def __init__(self, author: Author, memory: Memory, should_stop: Callable[[], bool]) -> None:
        self.author = author
        self._memory, self._should_stop = memory, should_stop
        self._hands: dict[str, _Hand] = {}
        self._ray: Any = None
        self._files: Any = None
        self._shapes: dict[str, str] = {}
        # The kind of card, as Ray calls it and as its drivers do.
        self._kind = ""
        self._device: str | None = None

    def write(
        self, wanted: Iterable[Wanted], may_begin: Callable[[], bool], *, again: bool = False
    ) -> Iterator[Finished]:
        """As `Writer.write`. A limit ends what is given out; chunks in hand are finished."""
        wanted = iter(wanted)
        first = next(wanted, None)
        if first is None:
            return
        self._start()
        board = Board(_chunks(chain([first], wanted), may_begin))
        while not board.is_over:
            if self._should_stop():
                raise Stopped("stopped while generating; finished texts are kept, run again to go on")
            self._feed(board, again=again)
            for hand, told in self._hear():
                yield from self._finished(board, hand, told)

    @property
    def device(self) -> str | None:
        """The cards; None while none was needed."""
        return self._device and f"{len(self._hands)} x {self._device}"

    @property
    def workers(self) -> list[dict[str, object]]:
        """What each worker did."""
        return [hand.told() for hand in self._hands.values()]

    @property
    def figures(self) -> Figures | None:
        """What the engines of all workers did so far; None where nothing is counted."""
        found = [figures for hand in self._hands.values() for figures in hand.figures if figures.tokens]
        if not found:
            return None
        # Side by side: what they did adds up, the time does not.
        return replace(sum(found, Figures()), seconds=max(each.seconds for each in found))

    def close(self) -> None:
        """Ends the workers, and Ray where it was started for them."""
        if self._ray:
            for hand in self._hands.values():
                self._kill(hand)
            self._ray.shutdown()
            self._ray = None

    # --- workers -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._ray:
            return
        self._ray = _connect(self.author)
        if self.author.settings.machine.cluster and self.author.base:
            self._files = self._ray.put(files_of(self.author))
        self._kind, num_workers = _places(self._ray, self.author)
        for number in range(1, num_workers + 1):
            hand = self._hands[f"worker {number}"] = _Hand(f"worker {number}")
            self._hire(hand)
        log.info("writing with %d workers", len(self._hands))

    def _hire(self, hand: _Hand) -> None:
        on_card = self.author.base is not None
        judges = num_judges(len(self._hands)) if on_card else 0
        where = {"accelerator_type": self._kind} if self._kind else {}
        remote = self._ray.remote(num_cpus=1, num_gpus=int(on_card), max_restarts=0, max_concurrency=4, **where)
        hand.actor = remote(Worker).remote(replace(self.author), __version__, self._shapes, judges)
        hand.actor.begin.remote(self._files)
        hand.telling = hand.actor.tell.remote()
        hand.node, hand.given, hand.begun = "", 0, 0
        hand.figures.append(Figures())

    def _kill(self, hand: _Hand) -> None:
        if hand.actor is not None:
            self._ray.kill(hand.actor)
        hand.actor = hand.telling = None

    def _feed(self, board: Board, *, again: bool) -> None:
        # A worker that never comes up must hold no chunk.
        for hand in self._hands.values():
            while hand.is_up and hand.given - hand.begun < _ROWS_WAITING and (chunk := board.give(hand.name)):
                hand.given += len(chunk)
                hand.actor.feed.remote(chunk, again=again)

    def _hear(self) -> Iterator[tuple[_Hand, Told | Exception]]:
        """What workers say within a while: what they finished, or what ended them."""
        telling = {hand.telling: hand for hand in self._hands.values() if hand.telling is not None}
        if not telling:
            raise ModelUnavailable("no worker can write, see above; run again when one can")
        ready, _ = self._ray.wait(list(telling), num_returns=len(telling), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(telling), timeout=_SECONDS_BETWEEN_LOOKS)
        for each in ready:
            hand = telling[each]
            # One that was heard before it ended this one: whatever it still said is written anew.
            if hand.telling is not each:
                continue
            try:
                told = self._ray.get(each)
                hand.telling = hand.actor.tell.remote()
            except self._ray.exceptions.RayError as error:
                told = error
            yield hand, told

    # --- what they say -----------------------------------------------------------------------------------------------

    def _finished(self, board: Board, hand: _Hand, told: Told | Exception) -> Iterator[Finished]:
        if isinstance(told, Exception):
            yield from self._bury(board, hand, told)
            return
        hand.node, hand.device, hand.begun = told.node, told.device or hand.device, told.begun
        if not self._is_like_the_others(board, hand, told):
            return
        # One commit for all that it says at a time: syncing is what costs.
        entries, tokens = [], 0
        for finished in told.finished:
            new = board.take([entry.key for entry in finished.entries])
            entries += [entry for entry in finished.entries if entry.key in new]
            # Those of copies do not count, by their share.
            tokens += finished.tokens * len(new) // max(1, len(finished.entries))
        hand.texts += len(entries)
        hand.tokens += tokens
        if told.finished:
            hand.figures[-1] = told.finished[-1].figures or Figures()
        if entries:
            yield Finished(entries, tokens, self.figures)

    def _is_like_the_others(self, board: Board, hand: _Hand, told: Told) -> bool:
        """Whether a worker computes as the others do: on another kind of card, or in other shapes, a text may differ.

        Shapes are the first worker's; where one had to step down they are its, and the others begin anew in them.
        """
        if told.device:
            self._device = self._device or told.device
        if told.device and told.device != self._device:
            log.warning("%s (%s): a %s among %s is left out", hand.name, told.node, told.device, self._device)
            self._send_away(board, hand)
            return False
        news = {name: shape for name, shape in told.shapes.items() if self._shapes.get(name) != shape}
        if news:
            known = [name for name in news if name in self._shapes]
            self._shapes |= news
            for name, shape in news.items():
                self._memory.set_shape(name, shape)
            for other in self._hands.values() if known else ():
                if other is not hand and other.actor is not None:
                    log.warning("%s begins anew, in the shapes that %s takes", other.name, hand.name)
                    self._send_away(board, other)
                    self._hire(other)
        return True

    def _send_away(self, board: Board, hand: _Hand) -> None:
        board.lose(hand.name, killed=False)
        self._kill(hand)

    def _bury(self, board: Board, hand: _Hand, error: Exception) -> Iterator[Finished]:
        """A dead worker's chunks go back, and it is replaced; one that says why it cannot work is not."""
        cause = getattr(error, "cause", None)
        given_up = board.lose(hand.name, killed=not isinstance(cause, EnrichError))
        self._kill(hand)
        if isinstance(cause, EnrichError):
            log.error("%s is left out: %s", hand.name, cause)
        else:
            hand.deaths += 1
            hand.stillborn = 0 if hand.node else hand.stillborn + 1
            log.warning("%s died (%s)", hand.name, type(error).__name__)
            if hand.stillborn < _STILLBORN:
                self._hire(hand)
        if given_up:
            yield Finished([_given_up(each, self.author) for each in given_up], 0)


def _chunks(wanted: Iterator[Wanted], may_begin: Callable[[], bool]) -> Iterator[list[Wanted]]:
    """Products of about one length, as many as may be begun."""
    while some := list(islice(wanted, CHUNK_ROWS)):
        chunk = [each for each in some if may_begin()]
        if chunk:
            yield sorted(chunk, key=_length)
        if len(chunk) < len(some):
            return


def _length(wanted: Wanted) -> int:
    length = len(wanted.product.title)
    for name, value in wanted.product.attributes:
        length += len(name) + len(value)
    return length


def _given_up(wanted: Wanted, author: Author) -> Entry:
    log.error("product %s killed every worker that wrote it: given up", wanted.key.hex())
    verdict = verdict_on(author.judge, "", "failed", wanted.product)
    return Entry(wanted.key, wanted.attempt, "", "failed", verdict)


def _connect(author: Author) -> Any:
    """Ray, started here or joined. Raises `ModelUnavailable` when it is not installed or not to be reached."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    machine = author.settings.machine
    try:
        import ray
    except ImportError:
        raise ModelUnavailable('several cards need Ray: pip install "enrich[cluster]"') from None
    here: Mapping[str, Any] = (
        {}
        if machine.cluster
        else {
            "num_cpus": max(num_cores(), machine.gpus if isinstance(machine.gpus, int) else 1),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    )
    # Ray takes the signals over, and ours ask politely.
    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=machine.cluster or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:
        hint = "; one with a token needs RAY_AUTH_MODE=token and ~/.ray/auth_token here" if machine.cluster else ""
        raise ModelUnavailable(f"Ray {machine.cluster or 'here'}: cannot be reached ({error}){hint}") from None
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    return ray


def _places(ray: Any, author: Author) -> tuple[str, int]:
    """On which kind of card to work, as Ray calls it, and on how many; without a model, on processors.

    Of several kinds it is the one there is most of: the cards of another would write other texts.
    """
    machine, kinds = author.settings.machine, Counter[str]()
    for node in ray.nodes():
        there = node["Resources"] if node["Alive"] else {}
        kind = next((name.partition(":")[2] for name in there if name.startswith("accelerator_type:")), "")
        if author.base is None:
            kinds[""] += int(there.get("CPU", 0))
        elif "GPU" in there:
            kinds[kind] += int(there["GPU"])
    (kind, there), *others = kinds.most_common() or [("", 0)]
    for other, number in others:
        log.warning("%d x %s left out: texts are written on one kind of card, %d x %s", number, other, there, kind)
    wanted = there if machine.gpus in (None, "all") else int(machine.gpus or 0)
    if not 0 < wanted <= there:
        raise ModelUnavailable(f"gpus {machine.gpus or 'all'}: Ray sees {there}; name fewer, or wait for more")
    return kind, wanted
