"""Everything that decides a text, as one digest, and the keys that follow from it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from enrich.products import Product
from enrich.settings import TextSettings


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
        parts = (self.template_id, self.base_digest, self.adapter_digest or "", self.text.model_dump_json())
        return _digest(b"".join(map(_framed, parts)))

    def key(self, product: Product) -> bytes:
        """16 bytes, BLAKE2b: equal exactly for equal products under equal recipes."""
        return _digest(self._scope + _content(product))


def product_key(product: Product) -> bytes:
    """16 bytes, BLAKE2b over title and attributes alone: a person's decision outlives every model."""
    return _digest(_content(product))


def _content(product: Product) -> bytes:
    pairs = (part for pair in product.attributes for part in pair)
    return b"".join(map(_framed, (product.title, *pairs)))


def _framed(text: str) -> bytes:
    # A length before each part: moving a letter from one to the next must change the key.
    content = text.encode()
    return len(content).to_bytes(8, "big") + content


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
