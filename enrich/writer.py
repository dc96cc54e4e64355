"""Writing: products in, judged texts out, by an author whose model is loaded for the first of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

from enrich.author import Author
from enrich.crew import Crew, num_cores
from enrich.engine.protocol import Completion, EchoGenerator, Figures, Generator, Request
from enrich.errors import Stopped
from enrich.memory import Entry
from enrich.plan import Wanted
from enrich.prompt import Prompt
from enrich.quality.judge import Judge
from enrich.verdicts import NOT_WRITTEN, verdict_on

if TYPE_CHECKING:
    from enrich.engine.model import Model

# Products whose prompts are tokenised together.
_WINDOW = 256
# Processes that judge texts beside a card: so many do as much as a card writes with the smallest of models.
_MOST_JUDGES = 4


@dataclass(frozen=True, slots=True)
class Finished:
    """Texts that finished together, ready to be remembered; how many tokens they took; what the writer's engines did so
    far."""

    entries: list[Entry]
    tokens: int
    figures: Figures | None = None

    @property
    def fates(self) -> dict[str, int]:
        """How many of them may not be published, and how many could not be written."""
        rejected = sum(entry.ended in NOT_WRITTEN for entry in self.entries)
        held = sum(entry.verdict.action != "publish" for entry in self.entries) - rejected
        return {"held": held, "rejected": rejected}


@dataclass(frozen=True, slots=True)
class _InFlight:
    wanted: Wanted
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class _Batch:
    """Texts to judge: what was asked for, the completion and how it ended, of each; and what goes with them."""

    texts: list[tuple[Wanted, bool, str, str]]
    tokens: int
    figures: Figures | None


class ShapeStore(Protocol):
    """Where the engine's shapes are kept, by name."""

    def shape(self, name: str) -> str | None: ...

    def set_shape(self, name: str, value: str) -> None: ...


@dataclass
class Writer:
    """An author at work. `write` may be called once for each round, or oftener; model and engine stay open between
    the calls, until `close`."""

    author: Author
    store: ShapeStore
    should_stop: Callable[[], bool]
    crew: Crew
    _in_flight: dict[bytes, _InFlight] = field(default_factory=dict)
    _engine: Generator | None = None
    _draws_again: bool = False
    figures: Figures | None = None
    """What its engines did so far; None where nothing is counted."""

    def write(
        self, wanted: Iterable[Wanted], may_begin: Callable[[], bool], *, again: bool = False
    ) -> Iterator[Finished]:
        """Writes a text for each product and yields them as their batches finish, ready to be remembered.

        `may_begin` is asked before each of them; once it says no, what is in hand is the last. With `again`, an author
        who always takes the likeliest token draws: the same attempt would give the same text. On `Stopped` what is
        finished comes first.
        """
        wanted = iter(wanted)
        first = next(wanted, None)
        if first is None:
            return
        self._in_flight.clear()
        stopped: list[Stopped] = []
        requests = self._requests(chain([first], wanted), may_begin)
        batches = self._batches(self._open(again=again), requests, stopped)
        yield from self.crew.in_order(partial(_judged, self.author.judge), batches, alone=not self._is_on_card)
        if stopped:
            raise stopped[0]

    def close(self) -> None:
        """Gives back what the engine holds of the device."""
        if self._engine:
            self._engine.close()
            self._engine = None

    def _batches(self, generator: Generator, requests: Iterator[Request], stopped: list[Stopped]) -> Iterator[_Batch]:
        """Completions that finish together, as texts. A stop ends them and is noted: the last are judged still."""
        completions: list[Completion] = []
        before = self.figures
        try:
            for completion in generator.generate(requests):
                completions.append(completion)
                if len(completions) >= generator.batch_rows:
                    self.figures = _total(before, generator.figures)
                    yield self._batch(completions)
                    completions = []
        except Stopped as error:
            stopped.append(error)
        self.figures = _total(before, generator.figures)
        yield self._batch(completions)

    def _requests(self, wanted: Iterator[Wanted], may_begin: Callable[[], bool]) -> Iterator[Request]:
        """The prompts, in order; each is noted as in flight until it finishes."""
        while window := list(islice(wanted, _WINDOW)):
            prompts = self.author.prompts.write([each.product for each in window])
            for each, prompt in zip(window, prompts, strict=True):
                if not may_begin():
                    return
                self._in_flight[each.key] = _InFlight(each, prompt)
                yield Request(each.key, prompt.ids, each.attempt)

    def _batch(self, completions: list[Completion]) -> _Batch:
        texts = self.author.prompts.tokenizer.decode_all([completion.ids for completion in completions])
        finished = []
        for completion, text in zip(completions, texts, strict=True):
            asked = self._in_flight.pop(completion.key)
            failed = "refused" if asked.prompt.refused else "failed"
            written = (text, str(completion.ended)) if completion.ended != "failed" else ("", failed)
            finished.append((asked.wanted, asked.prompt.cut, *written))
        return _Batch(finished, sum(len(completion.ids) for completion in completions), self.figures)

    def _open(self, *, again: bool) -> Generator:
        if self._engine is None or again != self._draws_again:
            self.close()
            self._engine, self._draws_again = self._generator(again=again), again
        return self._engine

    def _generator(self, *, again: bool) -> Generator:
        settings = self.author.settings
        if self.author.base is None:
            return EchoGenerator(settings.text.max_new_tokens)
        from enrich.engine.tiers import Stored, Wish, open_engine

        model = self._model
        place = f"{model.device_name} {self.author.recipe.digest}"
        stored = Stored(
            get=lambda name: self.store.shape(f"{name} {place}"),
            put=lambda name, shapes: self.store.set_shape(f"{name} {place}", shapes),
        )
        wish = Wish.of(settings, self.author.prompts.prefix_ids, again=again)
        return open_engine(model, wish, stored, self.should_stop, kind=settings.machine.engine)

    @property
    def workers(self) -> list[dict[str, object]]:
        """Nobody works for it."""
        return []

    @property
    def device(self) -> str | None:
        """The card, or cpu; None while no model was needed."""
        return self._model.device_name if "_model" in self.__dict__ else None

    @property
    def _is_on_card(self) -> bool:
        """Where the model needs the cores itself, processes beside it would only take them away."""
        return self.author.base is not None and self._model.device.type == "cuda"

    @cached_property
    def _model(self) -> "Model":
        return self.author.load()


def num_judges(cards: int = 1) -> int:
    """How many processes judge beside a card, where so many share the cores of this machine."""
    return min(_MOST_JUDGES, num_cores() // cards - 1)


def _total(before: Figures | None, figures: Figures | None) -> Figures | None:
    # A sum is a copy: the engine goes on counting.
    return before if figures is None else (before or Figures()) + figures


def _judged(judge: Judge, batch: _Batch) -> Finished:
    """In whatever process there is."""
    entries = [
        Entry(asked.key, asked.attempt, text, ended, verdict_on(judge, text, ended, asked.product), cut=cut)
        for asked, cut, text, ended in batch.texts
    ]
    return Finished(entries, batch.tokens, batch.figures)
