"""Template and product → prompt ids. The only place that knows [INST]; shared with training.

Template and user text are tokenised apart and joined as ids, and no id of user text is ever a token with a
meaning of its own: `</s>` in a title is four characters, not the end of the text.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer as FastTokenizer

from enrich.errors import ModelUnavailable, SettingsError
from enrich.products import Product

_BOS, _EOS = "<s>", "</s>"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_CALLED = {
    "title": "title",
    "título": "title",
    "titulo": "title",
    "attributes": "attributes",
    "atributos": "attributes",
    "description": "description",
    "descrição": "description",
    "descricao": "description",
}
# No tokenizer makes fewer tokens than one for so many characters of ordinary text.
_CHARACTERS_A_TOKEN = 32


@dataclass(frozen=True, slots=True)
class Literal:
    """Template text, white space and all."""

    text: str


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the product's `title` or `attributes` go; `lead` is the white space before it.

    It is tokenised with the user's text: a token for a word holds the space before the word.
    """

    name: str
    lead: str


@dataclass(frozen=True)
class Template:
    """A parsed prompt template: what comes before the description."""

    has_bos: bool
    parts: tuple[Literal | Slot, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Reads `<s>[INST] … {title} [/INST] {description} </s>`; what follows the title may be left out.

        Raises `SettingsError` for an unknown placeholder, a missing title, or text behind the description.
        """
        head, found, tail = _split_at_description(text)
        if found and tail.strip() not in ("", _EOS):
            raise SettingsError(f"template: only {_EOS} may follow the description, not {tail.strip()!r}")
        body = head.strip()
        parts = tuple(_parts(body.removeprefix(_BOS)))
        names = [part.name for part in parts if isinstance(part, Slot)]
        if names.count("title") != 1 or len(set(names)) < len(names):
            raise SettingsError("template: needs {title} once, and {attributes} at most once")
        return cls(body.startswith(_BOS), parts)

    @cached_property
    def id(self) -> str:
        """32 hex digits over what the template says."""
        canonical = [
            self.has_bos,
            *([part.text] if isinstance(part, Literal) else [part.name, part.lead] for part in self.parts),
        ]
        return hashlib.blake2b(json.dumps(canonical).encode(), digest_size=16).hexdigest()

    @property
    def has_attributes(self) -> bool:
        return any(isinstance(part, Slot) and part.name == "attributes" for part in self.parts)


def _split_at_description(text: str) -> tuple[str, bool, str]:
    for match in _PLACEHOLDER.finditer(text):
        if _CALLED.get(match[1]) == "description":
            return text[: match.start()], True, text[match.end() :]
    return text, False, ""


def _parts(body: str) -> Iterator[Literal | Slot]:
    at = 0
    for match in _PLACEHOLDER.finditer(body):
        name = _CALLED.get(match[1])
        if name is None:
            raise SettingsError(f"template: unknown placeholder {match[0]}; there are {{title}} and {{attributes}}")
        literal = body[at : match.start()]
        if literal.rstrip():
            yield Literal(literal.rstrip())
        yield Slot(name, literal[len(literal.rstrip()) :])
        at = match.end()
    if body[at:]:
        yield Literal(body[at:])


class Tokenizer(Protocol):
    """What a prompt needs of a tokenizer. Ids of user text are never those of an added token."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int: ...

    def encode_template(self, text: str, *, first: bool) -> list[int]: ...

    def encode_texts(self, texts: Sequence[str], *, first: bool) -> list[list[int] | None]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class ByteTokenizer:
    """For the echo engine: user text is its UTF-8 bytes (0-255), template text the same plus 256."""

    bos_id = 512
    eos_id = 513

    def encode_template(self, text: str, *, first: bool) -> list[int]:
        return [256 + byte for byte in text.encode()]

    def encode_texts(self, texts: Sequence[str], *, first: bool) -> list[list[int] | None]:
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="ignore")


class ModelTokenizer:
    """A model's own tokenizer, from its `tokenizer.json`."""

    def __init__(self, content: str, bos: str | None, eos: str) -> None:
        """`content` is the JSON of a fast tokenizer; `bos` and `eos` are the tokens the model was trained with."""
        self._whole = FastTokenizer.from_str(content)
        self._whole.no_truncation()
        self._whole.no_padding()
        # `add_special_tokens=False` still finds added tokens in a text, and the switch that stops the special
        # ones lets the others through. A tokenizer that has none cannot.
        self._plain = FastTokenizer.from_str(_without_added_tokens(content))
        self._added = frozenset(self._whole.get_added_tokens_decoder())
        self.bos_id = None if bos is None else self._whole.token_to_id(bos)
        self.eos_id: int = self._whole.token_to_id(eos)
        # Sentencepiece tokenizers put a space before whatever they are given.
        self._adds_space = self._tokens_of("a") == self._tokens_of(" a") or self._tokens_of("a")[:1] == ["▁a"]

    @classmethod
    def load(cls, folder: Path) -> "ModelTokenizer":
        """Reads a model folder. Raises `ModelUnavailable` when it names no end token or is damaged."""
        try:
            content = (folder / "tokenizer.json").read_text(encoding="utf-8")
            named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            bos, eos = _content_of(named.get("bos_token")), _content_of(named.get("eos_token"))
            if eos is None:
                raise ModelUnavailable(f"{folder}: its tokenizer names no end token, so its texts never end")
            return cls(content, bos, eos)
        except ModelUnavailable:
            raise
        except Exception as error:  # the tokenizers library raises plain Exception
            raise ModelUnavailable(f"{folder}: its tokenizer cannot be read: {error}; fetch it again") from None

    def encode_template(self, text: str, *, first: bool) -> list[int]:
        """Template text; `first` says that nothing comes before it."""
        return list(self._whole.encode(self._led(text, first), add_special_tokens=False).ids)

    def encode_texts(self, texts: Sequence[str], *, first: bool) -> list[list[int] | None]:
        """User texts; None for one that cannot be said without a token of its own meaning."""
        encoded = self._plain.encode_batch([self._led(text, first) for text in texts], add_special_tokens=False)
        return [None if self._added.intersection(each.ids) else list(each.ids) for each in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Plain text, without special tokens."""
        return str(self._whole.decode(list(ids), skip_special_tokens=True))

    def _led(self, text: str, first: bool) -> str:
        return text[1:] if self._adds_space and not first and text.startswith(" ") else text

    def _tokens_of(self, text: str) -> list[str]:
        return list(self._plain.encode(text, add_special_tokens=False).tokens)


def _content_of(token: Any) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _without_added_tokens(content: str) -> str:
    parsed = json.loads(content)
    parsed["added_tokens"] = []
    parsed["post_processor"] = None
    parsed["truncation"] = parsed["padding"] = None
    return json.dumps(parsed)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt ids, whether the product had to be cut to fit, and whether it may be asked at all."""

    ids: tuple[int, ...]
    cut: bool = False
    refused: bool = False


class PromptWriter:
    """Writes prompts of at most `max_prompt_tokens` ids from products."""

    def __init__(self, template: Template, tokenizer: Tokenizer, max_prompt_tokens: int) -> None:
        """Raises `SettingsError` when the template alone leaves no room for a product."""
        self.tokenizer = tokenizer
        self._template = template
        self._pieces = [
            part if isinstance(part, Slot) else tokenizer.encode_template(part.text, first=index == 0)
            for index, part in enumerate(template.parts)
        ]
        self._start = [tokenizer.bos_id] if template.has_bos and tokenizer.bos_id is not None else []
        fixed = len(self._start) + sum(len(piece) for piece in self._pieces if not isinstance(piece, Slot))
        self._room = max_prompt_tokens - fixed
        if self._room < 1:
            raise SettingsError(f"max_prompt_tokens {max_prompt_tokens}: the template alone takes {fixed}")

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """What every prompt begins with: the template up to its first placeholder."""
        first = self._pieces[0]
        return (*self._start, *(first if not isinstance(first, Slot) else ()))

    def write(self, products: Sequence[Product]) -> list[Prompt]:
        """One prompt for each product, in order."""
        slots = [piece for piece in self._pieces if isinstance(piece, Slot)]
        encoded = {slot.name: self._encode(slot, products) for slot in slots}
        return [self._join({name: texts[index] for name, texts in encoded.items()}) for index in range(len(products))]

    def completion_ids(self, description: str) -> list[int]:
        """What training learns to write after a prompt: the description with the space before it, and the end."""
        ids = self.tokenizer.encode_texts([" " + description], first=False)[0]
        if ids is None:
            raise SettingsError("a description holds a token with a meaning of its own")
        return [*ids, self.tokenizer.eos_id]

    def _encode(self, slot: Slot, products: Sequence[Product]) -> list[list[int] | None]:
        limit = self._room * _CHARACTERS_A_TOKEN
        said = (self._said(slot, product)[:limit] for product in products)
        first = self._pieces[0] is slot
        return self.tokenizer.encode_texts([slot.lead + text if text else "" for text in said], first=first)

    def _said(self, slot: Slot, product: Product) -> str:
        attributes = "; ".join(f"{name}: {value}" for name, value in product.attributes)
        if slot.name == "attributes":
            return attributes
        return product.title if self._template.has_attributes or not attributes else f"{product.title}; {attributes}"

    def _join(self, said: dict[str, list[int] | None]) -> Prompt:
        texts = {name: ids for name, ids in said.items() if ids is not None}
        if len(texts) < len(said):
            return Prompt((), refused=True)
        title = texts["title"][: self._room]
        attributes = texts.get("attributes", [])[: self._room - len(title)]
        fitted = {"title": title, "attributes": attributes}
        ids = list(self._start)
        for piece in self._pieces:
            ids.extend(fitted[piece.name] if isinstance(piece, Slot) else piece)
        cut = any(len(fitted[name]) < len(text) for name, text in texts.items())
        return Prompt(tuple(ids), cut)
