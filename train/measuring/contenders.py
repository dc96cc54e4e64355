"""Who is compared, and on which rows: a base, the adapter in force and a new one, on rows none of them learnt from.

Knows what the adapters' folders say of their training, and no model.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from enrich.engine.adapter import Adapter, base_of
from enrich.engine.bases import Base, find_base
from enrich.prompt import ModelTokenizer, PromptWriter, Template
from enrich.settings import Settings, home
from train.pairs import Pair
from train.split import split_of

BASE, IN_FORCE, NEW = "base", "in force", "adapter"
"""The names that contenders have in records and on pages."""


@dataclass(frozen=True)
class Contender:
    """A base with one adapter or none, asked through its template."""

    name: str
    base: Base
    adapter: Adapter | None
    template: Template

    def prompts(self, max_prompt_tokens: int) -> PromptWriter:
        """Reads the tokenizer."""
        return PromptWriter(self.template, ModelTokenizer.load(self.base.folder), max_prompt_tokens)


def contenders(new: Adapter | None, in_force: Adapter | None, settings: Settings) -> list[Contender]:
    """The bare base, the adapter in force if there is another than the new one, and the new one if there is one.

    All are asked through the template of the settings, and run on one base. Only an adapter in force that was
    trained for others is run with its own, as it is in production: so an adapter for a larger base can replace a
    smaller one's. Raises `SettingsError` when the new one belongs to another base or template.
    """
    template = Template.parse(settings.text.template)
    base = find_base(settings.model.base or base_of(new or in_force), home())
    found = [Contender(BASE, base, None, template)]
    if in_force and not (new and new.digest == in_force.digest):
        found.append(_with_own(in_force, base, template, settings))
    if new:
        new.check(base, template.id, settings.names_base_and_template)
        found.append(Contender(NEW, base, new, template))
    return found


def _with_own(adapter: Adapter, base: Base, template: Template, settings: Settings) -> Contender:
    if adapter.base_digest not in (None, base.digest):
        base = find_base(base_of(adapter), home())
    if adapter.template:
        template = Template.parse(adapter.template)
    adapter.check(base, template.id, settings.names_base_and_template)
    return Contender(IN_FORCE, base, adapter, template)


def unseen(pairs: Sequence[Pair], split: str, adapters: Collection[Adapter]) -> tuple[list[Pair], str | None]:
    """The pairs that are of `split` in every adapter's training too, and None; or why there are none to compare on.

    The split of a row follows from its title's group, a seed and the shares alone. So an adapter that recorded those
    tells of any row, of any catalogue, whether it could have learnt from it.
    """
    left = list(pairs)
    for adapter in adapters:
        splitting = _splitting(adapter)
        if splitting is None:
            return [], f"{adapter.folder}: does not record how its data was split, so it may have seen these rows"
        left = [pair for pair in left if split_of(pair.product.title, *splitting) == split]
        if not left:
            return [], f"{adapter.folder}: none of these rows is a {split} row of its training; prepare with its seed"
    return left, None


def training_record(adapter: Adapter) -> dict[str, Any]:
    """What its `enrich.json` says; empty without one. `read_adapter` has read it before, so it is an object."""
    file = adapter.folder / "enrich.json"
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return record


def _splitting(adapter: Adapter) -> tuple[int, float, float] | None:
    """Seed, validation share and test share."""
    match training_record(adapter).get("split"):
        case {"seed": int(seed), "validation_share": float() | 0 as validation, "test_share": float() | 0 as test}:
            return seed, float(validation), float(test)
        case _:
            return None
