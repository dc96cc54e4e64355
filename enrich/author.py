"""Who writes the texts: a template, a base and an adapter chosen by the settings, and an engine to run them.

Choosing needs neither tokenizer nor torch, so a night on which everything is remembered loads no model.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.engine.adapter import SHIPPED, Adapter, adapter_in_force, base_of, read_adapter
from enrich.engine.bases import Base, find_base
from enrich.engine.protocol import Completion, EchoGenerator, Figures, Generator, Request, Streamer
from enrich.errors import Stopped
from enrich.memory import Entry, Memory
from enrich.products import Product
from enrich.prompt import ByteTokenizer, ModelTokenizer, Prompt, PromptWriter, Template, Tokenizer
from enrich.quality.rules import POLICY, judge
from enrich.recipe import Recipe
from enrich.settings import Settings, home

if TYPE_CHECKING:
    from enrich.engine.model import Model

log = logging.getLogger("enrich")

# Products whose prompts are tokenised together.
_WINDOW = 256


@dataclass(frozen=True, slots=True)
class Finished:
    """Texts that finished together, ready to be remembered; how many tokens they took; what the engine did so far."""

    entries: list[Entry]
    tokens: int
    figures: Figures | None = None


@dataclass(frozen=True)
class Author:
    """A choice of model and template. `base` is None for echo, `adapter` None for the bare base."""

    settings: Settings
    template: Template
    base: Base | None
    adapter: Adapter | None

    @classmethod
    def choose(cls, settings: Settings) -> "Author":
        """Finds base and adapter and checks that they belong together.

        Raises `ModelUnavailable` when one is not there, `SettingsError` when they do not fit.
        """
        template = Template.parse(settings.text.template)
        if settings.machine.engine == "echo":
            return cls(settings, template, None, None)
        named = settings.model.adapter
        adapter = _read_in_force() if named is None else read_named(named)
        base = find_base(settings.model.base or base_of(adapter), home())
        if adapter and named is None:
            adapter = _default_adapter(adapter, base, template)
        return cls(settings, template, base, None).with_adapter(adapter)

    def with_adapter(self, adapter: Adapter | None) -> "Author":
        """The author that differs in its adapter alone. Raises `SettingsError` when base or template do not fit it."""
        if adapter and self.base:
            adapter.check(self.base, self.template.id, self.settings.names_base_and_template)
        return replace(self, adapter=adapter)

    @cached_property
    def recipe(self) -> Recipe:
        """Everything that decides a text."""
        adapter = self.adapter.digest if self.adapter else None
        return Recipe(self.template.id, self.base.digest if self.base else "echo", adapter, self.settings.text)

    def provenance(self) -> dict[str, object]:
        """What the published file says of its texts."""
        adapters = [self.adapter.provenance()] if self.adapter else []
        base = {"name": self.base.name, "digest": self.base.digest} if self.base else {"name": "echo"}
        return {
            "base": base,
            "adapters": adapters,
            "template": self.template.id,
            "settings": self.recipe.digest,
        }

    @cached_property
    def prompts(self) -> PromptWriter:
        """Reads the tokenizer when first used."""
        tokenizer: Tokenizer = ModelTokenizer.load(self.base.folder) if self.base else ByteTokenizer()
        return PromptWriter(self.template, tokenizer, self.settings.text.max_prompt_tokens)

    def write(
        self, products: Iterable[tuple[bytes, Product]], memory: Memory, should_stop: Callable[[], bool]
    ) -> Iterator[Finished]:
        """Writes a text for each product and yields them as their batches finish, ready to be remembered.

        The model is loaded for the first product. On `Stopped` what is finished comes first.
        """
        products = iter(products)
        first = next(products, None)
        if first is not None:
            generator = self._generator(memory, should_stop)
            try:
                yield from self._write(generator, chain([first], products))
            finally:
                generator.close()

    def _write(self, generator: Generator, products: Iterator[tuple[bytes, Product]]) -> Iterator[Finished]:
        unusual: dict[bytes, Prompt] = {}
        completions: list[Completion] = []
        try:
            for completion in generator.generate(self._requests(products, unusual)):
                completions.append(completion)
                if len(completions) >= generator.batch_rows:
                    yield self._finish(completions, unusual, generator.figures)
                    completions = []
        except Stopped:
            yield self._finish(completions, unusual, generator.figures)
            raise
        yield self._finish(completions, unusual, generator.figures)

    def _requests(self, products: Iterator[tuple[bytes, Product]], unusual: dict[bytes, Prompt]) -> Iterator[Request]:
        """The prompts, in order; those that were cut or refused are noted in `unusual` until they finish."""
        while window := list(islice(products, _WINDOW)):
            prompts = self.prompts.write([product for _, product in window])
            for (key, _), prompt in zip(window, prompts, strict=True):
                if prompt.cut or prompt.refused:
                    unusual[key] = prompt
                yield Request(key, prompt.ids)

    def _finish(self, completions: list[Completion], unusual: dict[bytes, Prompt], figures: Figures | None) -> Finished:
        texts = self.prompts.tokenizer.decode_all([completion.ids for completion in completions])
        entries = [
            self._entry(completion, text, unusual.pop(completion.key, None))
            for completion, text in zip(completions, texts, strict=True)
        ]
        return Finished(entries, sum(len(completion.ids) for completion in completions), figures)

    def _entry(self, completion: Completion, text: str, unusual: Prompt | None) -> Entry:
        if completion.ended == "failed":
            return Entry(completion.key, 0, "", "refused" if unusual and unusual.refused else "failed", POLICY)
        verdict = judge(text, completion.ended)
        judged = (POLICY, verdict.text, verdict.flags, verdict.score)
        return Entry(completion.key, 0, text, completion.ended, *judged, cut=unusual is not None)

    def _generator(self, memory: Memory, should_stop: Callable[[], bool]) -> Generator:
        text = self.settings.text
        if self.base is None:
            return EchoGenerator(text.max_new_tokens)
        from enrich.engine.tiers import Stored, Wish, open_engine

        model = self._load(self.base)
        place = f"{model.device_name} {self.recipe.digest}"
        stored = Stored(
            get=lambda name: memory.shape(f"{name} {place}"),
            put=lambda name, shapes: memory.set_shape(f"{name} {place}", shapes),
        )
        wish = Wish.of(self.settings, self.prompts.prefix_ids)
        return open_engine(model, wish, stored, should_stop, kind=self.settings.machine.engine)

    def streamer(self) -> Streamer:
        """What writes one text at a time, token by token; the model is loaded at once."""
        text = self.settings.text
        if self.base is None:
            return EchoGenerator(text.max_new_tokens)
        from enrich.engine.stream import StreamingEngine

        return StreamingEngine(
            self._load(self.base),
            max_prompt_tokens=text.max_prompt_tokens,
            max_new_tokens=text.max_new_tokens,
            repetition_penalty=text.repetition_penalty,
        )

    def _load(self, base: Base) -> "Model":
        from enrich.engine.model import load_model

        text, device = self.settings.text, self.settings.machine.device
        log.info("loading %s%s", base.name, f" with {self.adapter.folder}" if self.adapter else "")
        return load_model(base, self.adapter, dtype=text.dtype, quantize=text.quantize, device=device)


def read_named(named: str) -> Adapter | None:
    """The adapter that a setting names; None for the bare base. Raises `ModelUnavailable` when it is not there."""
    return None if named == "none" else read_adapter(Path(named))


def _read_in_force() -> Adapter | None:
    folder = adapter_in_force(home())
    return read_adapter(folder) if folder else None


def _default_adapter(in_force: Adapter, base: Base, template: Template) -> Adapter | None:
    """The adapter of a run that names none. The shipped one, which nobody chose, is left out where it does not fit."""
    fits = (in_force.base_digest, in_force.template_id) == (base.digest, template.id)
    if fits or in_force.folder != home() / SHIPPED:
        return in_force
    log.info("%s: made for another base or template, so the bare base writes", in_force.folder)
    return None
