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
from unicodedata import normalize

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
# No tokenizer makes fewer tokens than one for so many characters of ordinary text, so more need not be read.
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
        """Reads `<s>[INST] … {title} [/INST] {description} </s>`; the description and the end may be left out.

        `<s>` in front is the model's own first token and `</s>` its end token, whatever it calls them. White space
        before the description is not the prompt's: each completion begins with one space of its own.
        Raises `SettingsError` for an unknown placeholder, a missing title, or text behind the description.
        """
        head, found, tail = _split_at_description(normalize("NFC", text))
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
    def instruction(self) -> str:
        """What it says beside the product."""
        return " ".join(part.text for part in self.parts if isinstance(part, Literal))

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

    def encode_template(self, text: str) -> list[int]: ...

    def encode_texts(self, texts: Sequence[str]) -> list[list[int] | None]: ...  # None: refused

    def decode(self, ids: Sequence[int]) -> str: ...

    def decode_all(self, completions: Sequence[Sequence[int]]) -> list[str]: ...


class ByteTokenizer:
    """For the echo engine: user text is its UTF-8 bytes (0-255), template text the same plus 256."""

    bos_id = 512
    eos_id = 513

    def encode_template(self, text: str) -> list[int]:
        return [256 + byte for byte in text.encode()]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int] | None]:
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="ignore")

    def decode_all(self, completions: Sequence[Sequence[int]]) -> list[str]:
        return list(map(self.decode, completions))


class ModelTokenizer:
    """A model's own tokenizer, from its `tokenizer.json`."""

    def __init__(self, content: str, bos: str | int | None, eos: str | int | None) -> None:
        """`content` is the JSON of a fast tokenizer; `bos` and `eos` are the model's own, as tokens or as ids.

        Raises `ValueError` when `eos` is no token of it.
        """
        self._whole = FastTokenizer.from_str(content)
        self._whole.no_truncation()
        self._whole.no_padding()
        # `add_special_tokens=False` still finds added tokens in a text, and the switch that stops the special
        # ones lets the others through. A tokenizer that has none cannot find any.
        self._plain = FastTokenizer.from_str(_without_added_tokens(content))
        self.bos_id = self._id_of(bos)
        eos_id = self._id_of(eos)
        if eos_id is None:
            raise ValueError("it names no end token, so its texts would never end")
        self.eos_id: int = eos_id
        self._control_ids = frozenset({*self._whole.get_added_tokens_decoder(), self.bos_id, self.eos_id})
        # Sentencepiece tokenizers put a space before whatever they are given, byte-level ones may.
        self._adds_space = self._first_piece_of("a").startswith(("▁", "Ġ"))

    @classmethod
    def load(cls, folder: Path) -> "ModelTokenizer":
        """Reads a model folder. Raises `ModelUnavailable` when its tokenizer is damaged or names no end token."""
        try:
            content = (folder / "tokenizer.json").read_text(encoding="utf-8")
            named = _read_json(folder / "tokenizer_config.json")
            numbered = _read_json(folder / "config.json")
            bos = _content_of(named.get("bos_token")) or _first_of(numbered.get("bos_token_id"))
            eos = _content_of(named.get("eos_token")) or _first_of(numbered.get("eos_token_id"))
            return cls(content, bos, eos)
        except Exception as error:  # the tokenizers library raises plain Exception
            raise ModelUnavailable(f"{folder}: its tokenizer cannot be used: {error}; fetch it again") from None

    def encode_template(self, text: str) -> list[int]:
        """Template text; added tokens keep their meaning in it."""
        return list(self._whole.encode(self._led(text), add_special_tokens=False).ids)

    def encode_texts(self, texts: Sequence[str]) -> list[list[int] | None]:
        """User texts; None for one that cannot be said without a token of its own meaning."""
        encoded = self._plain.encode_batch([self._led(text) for text in texts], add_special_tokens=False)
        return [None if self._control_ids.intersection(each.ids) else list(each.ids) for each in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Plain text, without special tokens."""
        return self.decode_all([ids])[0]

    def decode_all(self, completions: Sequence[Sequence[int]]) -> list[str]:
        """The plain text of each, on all cores."""
        return list(self._whole.decode_batch([list(ids) for ids in completions], skip_special_tokens=True))

    def _led(self, text: str) -> str:
        return text[1:] if self._adds_space and text.startswith(" ") else text

    def _id_of(self, token: str | int | None) -> int | None:
        found = self._whole.token_to_id(token) if isinstance(token, str) else token
        return None if found is None else int(found)

    def _first_piece_of(self, text: str) -> str:
        return "".join(self._plain.encode(text, add_special_tokens=False).tokens[:1])


def _read_json(file: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return parsed


def _content_of(token: Any) -> str | None:
    content: str | None = token["content"] if isinstance(token, dict) else token
    return content


def _first_of(ids: Any) -> int | None:
    first: int | None = next(iter(ids), None) if isinstance(ids, list) else ids
    return first


def _without_added_tokens(content: str) -> str:
    parsed = json.loads(content)
    parsed["added_tokens"] = []
    parsed["post_processor"] = None
    parsed["truncation"] = parsed["padding"] = None
    return json.dumps(parsed)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt ids, and whether the product had to be cut to fit.

    `refused`: the product cannot be said without a control token, so there are no ids and nothing may be asked.
    """

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
            part if isinstance(part, Slot) else tokenizer.encode_template(part.text) for part in template.parts
        ]
        self._start = [tokenizer.bos_id] if template.has_bos and tokenizer.bos_id is not None else []
        fixed = len(self._start) + sum(len(piece) for piece in self._pieces if not isinstance(piece, Slot))
        self._room = max_prompt_tokens - fixed
        if self._room < 1:
            raise SettingsError(
                f"max_prompt_tokens {max_prompt_tokens}: the template alone takes {fixed}; allow more, or shorten it"
            )
        self._max_characters = self._room * _CHARACTERS_A_TOKEN

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """What every prompt begins with: the template up to its first placeholder."""
        first = self._pieces[0]
        return (*self._start, *(first if not isinstance(first, Slot) else ()))

    def write(self, products: Sequence[Product]) -> list[Prompt]:
        """One prompt for each product, in order."""
        said = [self._said(product) for product in products]
        slots = [piece for piece in self._pieces if isinstance(piece, Slot)]
        encoded = {slot.name: self._encode(slot, [texts[slot.name] for texts in said]) for slot in slots}
        return [
            self._join(texts, {name: ids[index] for name, ids in encoded.items()}) for index, texts in enumerate(said)
        ]

    def completion_ids(self, description: str) -> list[int] | None:
        """What training learns to write after a prompt: the description with the space before it, and the end.

        None for a description that cannot be said without a control token: it is nothing to learn from.
        """
        ids = self.tokenizer.encode_texts([" " + description])[0]
        return None if ids is None else [*ids, self.tokenizer.eos_id]

    def _encode(self, slot: Slot, texts: Sequence[str]) -> list[list[int] | None]:
        led = [slot.lead + text[: self._max_characters] if text else "" for text in texts]
        return self.tokenizer.encode_texts(led)

    def _said(self, product: Product) -> dict[str, str]:
        attributes = "; ".join(f"{name}: {value}" for name, value in product.attributes)
        if self._template.has_attributes:
            return {"title": product.title, "attributes": attributes}
        return {"title": f"{product.title}; {attributes}" if attributes else product.title}

    def _join(self, said: dict[str, str], encoded: dict[str, list[int] | None]) -> Prompt:
        texts = {name: ids for name, ids in encoded.items() if ids is not None}
        if len(texts) < len(encoded):
            return Prompt((), refused=True)
        title = texts["title"][: self._room]
        attributes = texts.get("attributes", [])[: self._room - len(title)]
        fitted = {"title": title, "attributes": attributes}
        ids = list(self._start)
        for piece in self._pieces:
            ids.extend(fitted[piece.name] if isinstance(piece, Slot) else piece)
        cut = any(len(fitted[name]) < len(texts[name]) or len(said[name]) > self._max_characters for name in said)
        return Prompt(tuple(ids), cut)
