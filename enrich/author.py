"""Who writes the texts: a template, a base and an adapter, chosen by the settings.

Choosing needs neither tokenizer nor torch, so a night on which everything is remembered loads no model.
"""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.engine.adapter import SHIPPED, Adapter, adapter_in_force, base_of, read_adapter
from enrich.engine.bases import Base, find_base
from enrich.engine.protocol import EchoGenerator, Streamer
from enrich.prompt import ByteTokenizer, ModelTokenizer, PromptWriter, Template, Tokenizer
from enrich.quality.judge import Judge
from enrich.recipe import Recipe
from enrich.settings import Settings, home

if TYPE_CHECKING:
    from enrich.engine.model import Model

log = logging.getLogger("enrich")


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

    @cached_property
    def judge(self) -> Judge:
        """Who judges the texts."""
        return Judge(self.settings.quality, self.template.instruction, repeats_the_product=self.base is None)

    def streamer(self) -> Streamer:
        """What writes one text at a time, token by token; the model is loaded at once."""
        text = self.settings.text
        if self.base is None:
            return EchoGenerator(text.max_new_tokens)
        from enrich.engine.stream import StreamingEngine

        return StreamingEngine(
            self.load(),
            max_prompt_tokens=text.max_prompt_tokens,
            max_new_tokens=text.max_new_tokens,
            repetition_penalty=text.repetition_penalty,
        )

    def load(self) -> "Model":
        """The base with its adapter, ready to run. Echo has none."""
        from enrich.engine.model import load_model

        if self.base is None:
            raise ValueError("echo has no model")
        text, device = self.settings.text, self.settings.machine.device
        log.info("loading %s%s", self.base.name, f" with {self.adapter.folder}" if self.adapter else "")
        return load_model(self.base, self.adapter, dtype=text.dtype, quantize=text.quantize, device=device)


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
