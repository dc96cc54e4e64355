"""Everything that decides a text, as one digest, and the keys that follow from it.

Knows nothing of rows, files and machines: they decide no text. No tokenizer is needed to find a key.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from enrich.products import Product
from enrich.settings import TextSettings

# BLAKE2b's `person` keeps the three kinds of digest apart. The numbers go up when the same product would be asked
# about in other words (its title and attributes are written into the prompt by code that no other part of a key
# tells of), so that no text of the old form is used for the new.
_RECIPE = b"enrich recipe 1"
_PRODUCT = b"enrich product 1"
_TEXT = b"enrich text 1"


@dataclass(frozen=True)
class Recipe:
    """Template, base, adapter and text settings. Two runs with equal recipes write equal texts."""

    template_id: str
    base_digest: str
    adapter_digest: str | None
    text: TextSettings

    @cached_property
    def digest(self) -> str:
        """32 hex digits."""
        return self._scope.hex()

    @cached_property
    def _scope(self) -> bytes:
        parts = [self.template_id, self.base_digest, self.adapter_digest, self.text.model_dump(mode="json")]
        canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return _digest(canonical.encode(), _RECIPE)

    def key(self, product: Product) -> bytes:
        """16 bytes, BLAKE2b: equal exactly for equal products under equal recipes."""
        return _digest(self._scope + _content(product), _TEXT)


def product_key(product: Product) -> bytes:
    """16 bytes, BLAKE2b over title and attributes alone: a person's decision outlives every model."""
    return _digest(_content(product), _PRODUCT)


def _content(product: Product) -> bytes:
    pairs = (part for pair in product.attributes for part in pair)
    return b"".join(map(_framed, (product.title, *pairs)))


def _framed(text: str) -> bytes:
    # A length before each part: moving a letter from one to the next must change the key.
    content = text.encode()
    return len(content).to_bytes(8, "big") + content


def _digest(content: bytes, person: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16, person=person).digest()
