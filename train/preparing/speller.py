"""Prompts as one would write them, for people and other tools: what `enrich.prompt` makes, spelt out and uncut."""

import re

from enrich.products import Product
from enrich.prompt import ByteTokenizer, PromptWriter, Template

_UNCUT = 1 << 30
# Private characters around the number of a text, where it goes.
_PLACE = re.compile("\ue000(\\d+)\ue001")


class Speller:
    """Spells the prompts of one template: up to and with [/INST], without the begin token.

    A frame is written by `PromptWriter` for the tokenizer whose tokens are bytes, and remembered: one for each set of
    attributes that products have.
    """

    def __init__(self, template: Template) -> None:
        self._prompts = PromptWriter(template, ByteTokenizer(), _UNCUT)
        self._frames: dict[tuple[str, ...], str] = {}

    def spell(self, product: Product) -> str:
        names = tuple(name for name, _ in product.attributes)
        frame = self._frames.get(names) or self._frames.setdefault(names, self._frame(names))
        return frame.format(product.title, *(value for _, value in product.attributes))

    def _frame(self, names: tuple[str, ...]) -> str:
        """A format string of what stands around the texts: 0 is the title, the values of the attributes follow."""
        places = [f"\ue000{number}\ue001" for number in range(len(names) + 1)]
        product = Product(places[0], tuple(zip(names, places[1:], strict=True)))
        ids = self._prompts.write([product])[0].ids
        spelt = bytes(token & 255 for token in ids if token < ByteTokenizer.bos_id).decode()
        return _PLACE.sub(r"{\1}", spelt.replace("{", "{{").replace("}", "}}"))
