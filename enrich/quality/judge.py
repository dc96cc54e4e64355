"""The judge: from a completion to what may be published of it, and why, or why not."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from enrich.products import Product
from enrich.quality.grounding import Grounding, Span
from enrich.quality.rules import Rules
from enrich.quality.score import action, score
from enrich.quality.tidy import tidy, to_full_sentence
from enrich.quality.words import Text, words_of
from enrich.settings import Action, Code, QualitySettings

# Goes up when the same text would be judged otherwise: verdicts of another policy are void, at no cost for the GPU.
_VERSION = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tidied text (None: nothing is left), the codes that speak against it, its score, and what becomes of it."""

    text: str | None
    flags: tuple[Code, ...]
    score: int
    action: Action


@dataclass(frozen=True)
class Judge:
    """Judges texts by the operator's settings.

    `instruction` is what the template says beside the product. `repeats_the_product` is for texts that are the product
    itself: they claim nothing beyond it, and only the operator's own rules are applied.
    """

    settings: QualitySettings
    instruction: str = ""
    repeats_the_product: bool = False

    @cached_property
    def policy(self) -> str:
        """16 hex digits: equal for judges whose verdicts are equal. How often a text is tried decides no verdict."""
        settings = self.settings.model_dump(mode="json", exclude={"retries"})
        lists = (files("enrich.quality") / "lexicons").iterdir()
        content = {each.name: hashlib.blake2b(each.read_bytes()).hexdigest() for each in lists if each.is_file()}
        parts = [_VERSION, settings, self.instruction, self.repeats_the_product, content]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()

    def judge(self, completion: str, ended: str, product: Product) -> Verdict:
        """The verdict on a completion that `ended` by itself (eos) or by the length limit (length)."""
        tidied, codes = self._tidied(completion, ended)
        if not tidied:
            return self._verdict(None, ["empty"])
        text = Text.of(tidied)
        codes += self._rules.own(text, product)
        if not self.repeats_the_product:
            codes += self._rules.general(text, product)
            codes += [_code(span) for span in self._grounding.unsupported(text, product)]
        return self._verdict(tidied, codes)

    def spans(self, text: str, product: Product) -> list[Span]:
        """The claims of a text that its product does not support, in order: for a person who has to decide."""
        return [] if self.repeats_the_product else self._grounding.unsupported(Text.of(text), product)

    def _tidied(self, completion: str, ended: str) -> tuple[str, list[Code]]:
        text = tidy(completion)
        if not text:
            return "", []
        codes: list[Code] = []
        limit = self.settings.max_chars
        is_over = limit is not None and len(text) > limit
        if ended == "length" or is_over:
            whole = to_full_sentence(text, limit)
            if whole is None:
                return text, ["cut_off"] if ended == "length" else codes
            if whole != text:
                codes.append("trimmed")
            text = whole
        return text, codes

    def _verdict(self, text: str | None, codes: Sequence[Code]) -> Verdict:
        points = score(codes)
        decided = action(codes, points, self.settings.min_score, self.settings.actions)
        return Verdict(text, tuple(dict.fromkeys(codes)), points, decided)

    @cached_property
    def _rules(self) -> Rules:
        chosen = self.settings
        return Rules(chosen.locale, chosen.min_chars, chosen.max_chars, chosen.forbidden, words_of(self.instruction))

    @cached_property
    def _grounding(self) -> Grounding:
        return Grounding(self.settings.terms, self.settings.allowed)


def _code(span: Span) -> Code:
    return f"unsupported_{span.kind}"  # type: ignore[return-value]
