"""Candidates judged by what is known of all of them: boilerplate cut, language, tokens; and marked for what follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from enrich.prompt import ByteTokenizer, ModelTokenizer, PromptWriter, Template, Tokenizer
from enrich.quality.duplicates import NUM_HASHES, Digests, Indices, Signatures, digests, signatures
from train.pairs import PAIR_SCHEMA, SPLITS, Pair, pairs_of, products_of
from train.prepare_settings import PrepareSettings
from train.preparing.boilerplate import Sketch, cut, hashes, sentences
from train.preparing.byte_level import is_byte_level
from train.preparing.filters import fault, folded
from train.preparing.funnel import CUT, Funnel
from train.preparing.lengths import Lengths
from train.preparing.speller import Speller
from train.preparing.spool import packed, unpacked
from train.split import split_of

if TYPE_CHECKING:
    from train.preparing.languages import Languages

SURVIVOR_SCHEMA = pa.schema([*PAIR_SCHEMA, ("prompt", pa.string()), ("split", pa.int8())])
"""`prompt`: up to and with [/INST], without the begin token; `split`: an index of `SPLITS`."""


@dataclass(frozen=True, slots=True)
class Survivors:
    """Packed rows of `SURVIVOR_SCHEMA`, what became of the others, and what tells duplicates: digests and
    signatures of the folded texts (no signature when near-duplicates are not looked for)."""

    rows: bytes
    funnel: Funnel
    digests: Digests
    signatures: Signatures

    @property
    def num_judged(self) -> int:
        """Rows that came in."""
        return len(self.digests) + self.funnel.num_dropped


@dataclass(frozen=True)
class Judge:
    """Judges candidates. `base` is the model's folder, None for the echo engine; `sketch` the file of sentence
    counts; a sentence in more than `max_shared` texts is boilerplate."""

    template: str
    base: Path | None
    max_prompt_tokens: int
    options: PrepareSettings
    sketch: Path
    max_shared: int

    def judge(self, candidates: bytes) -> Survivors:
        """The survivors of a packed batch of candidates, in order."""
        funnel = Funnel()
        rows = self._without_boilerplate(unpacked(candidates), funnel)
        if self.options.language:
            rows = self._in_language(rows, self.options.language, funnel)
        rows = self._sayable(rows, funnel)
        texts = [folded(text) for text in rows.column("description").to_pylist()]
        return Survivors(
            packed(self._marked(rows)),
            funnel,
            digests(texts),
            signatures(texts) if self.options.near_duplicates else np.empty((0, NUM_HASHES), np.uint16),
        )

    def _without_boilerplate(self, rows: pa.RecordBatch, funnel: Funnel) -> pa.RecordBatch:
        """The rows with what is left of their descriptions, as rows of `PAIR_SCHEMA`."""
        sharing = self._sharing(rows.column("sentences"))
        rows = rows.select(PAIR_SCHEMA.names)
        if not len(sharing):
            return rows
        texts = rows.column("description").to_pylist()
        for index, pair in zip(sharing.tolist(), pairs_of(rows.take(pa.array(sharing))), strict=True):
            texts[index] = self._cleared(pair, funnel)
        left = rows.set_column(rows.num_columns - 1, PAIR_SCHEMA.field("description"), pa.array(texts, pa.string()))
        return left.filter(left.column("description").is_valid())

    def _sharing(self, sentences: pa.ListArray) -> Indices:
        """Which rows have a sentence that too many share."""
        is_shared = self._counts.counts(sentences.flatten().to_numpy()) > self.max_shared
        num_shared = np.append(0, np.cumsum(is_shared))
        return np.flatnonzero(np.diff(num_shared[sentences.offsets.to_numpy()]))

    def _cleared(self, pair: Pair, funnel: Funnel) -> str | None:
        """What is left of a description without the sentences that many share, if that is enough."""
        parts = sentences(pair.description)
        shared = (self._counts.counts(np.array(hashes(parts), np.uint64)) > self.max_shared).tolist()
        text = cut(parts, shared)
        if fault(pair.product, text, self.options.min_characters):
            funnel.count("boilerplate", pair.product.title, pair.description, f"left without it: {text}")
            return None
        funnel.count(CUT, pair.product.title, text, f"cut: {parts[shared.index(True)]}")
        return text

    def _in_language(self, rows: pa.RecordBatch, language: str, funnel: Funnel) -> pa.RecordBatch:
        texts = rows.column("description").to_pylist()
        found = [self._languages.of(text) for text in texts]
        faults = [None if each == language else ("wrong_language", f"{each}, not {language}") for each in found]
        return _without(rows, faults, funnel)

    def _sayable(self, rows: pa.RecordBatch, funnel: Funnel) -> pa.RecordBatch:
        return _without(rows, self._lengths.faults(rows.column("description").to_pylist()), funnel)

    def _marked(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        products = list(products_of(rows))
        splits = [SPLITS.index(self._split(product.title)) for product in products]
        prompts = pa.array(map(self._speller.spell, products), pa.string())
        return pa.RecordBatch.from_arrays([*rows.columns, prompts, pa.array(splits, pa.int8())], schema=SURVIVOR_SCHEMA)

    def _split(self, title: str) -> str:
        options = self.options
        return split_of(title, options.seed, options.validation_share, options.test_share)

    @cached_property
    def _counts(self) -> Sketch:
        return Sketch.load(self.sketch)

    @cached_property
    def _languages(self) -> "Languages":
        from train.preparing.languages import Languages

        return Languages()

    @cached_property
    def _speller(self) -> Speller:
        return Speller(Template.parse(self.template))

    @cached_property
    def _lengths(self) -> Lengths:
        tokenizer: Tokenizer = ModelTokenizer.load(self.base) if self.base else ByteTokenizer()
        prompts = PromptWriter(Template.parse(self.template), tokenizer, self.max_prompt_tokens)
        controls = frozenset(number for number in (tokenizer.bos_id, tokenizer.eos_id) if number is not None)
        by_bytes = self.base is None or is_byte_level((self.base / "tokenizer.json").read_text("utf-8"), controls)
        return Lengths(prompts, self.options.max_completion_tokens, is_byte_level=by_bytes)


def _without(rows: pa.RecordBatch, faults: Sequence[tuple[str, str] | None], funnel: Funnel) -> pa.RecordBatch:
    """The rows without a fault; the others are noted in the funnel: filter and reason."""
    is_faulty = [found is not None for found in faults]
    if not any(is_faulty):
        return rows
    dropped = rows.filter(pa.array(is_faulty))
    for pair, (name, why) in zip(pairs_of(dropped), filter(None, faults), strict=True):
        funnel.count(name, pair.product.title, pair.description, why)
    return rows.filter(pa.array([not each for each in is_faulty]))
