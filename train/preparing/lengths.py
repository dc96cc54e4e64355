"""Which texts cannot be completions: those with a control token, and those of too many tokens.

A tokenizer takes a quarter of a millisecond for 500 characters, a look-up of their words a twentieth of that. A
token may begin with a space but spans none in any tokenizer of the Llama or GPT-2 kind, so a text has as many
tokens as its words; only where that is near or above the limit is the text itself tokenised. For a byte-level
tokenizer bytes are a bound, too: most texts pass with a few unknown words, which then need not be learnt.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrich.prompt import PromptWriter

_Counts = npt.NDArray[np.int64]

# Their words are most of all the words there are.
_FEW_TEXTS = 1000
_MAX_WORDS, _MAX_WORD_CHARACTERS = 200_000, 64
# No tokenizer makes fewer tokens than one for so many characters of ordinary text.
_CHARACTERS_A_TOKEN = 32


class Lengths:
    """Judges completions by their tokens, the space before and the end token among them; remembers words."""

    def __init__(self, prompts: PromptWriter, max_tokens: int, *, is_byte_level: bool = False) -> None:
        """`is_byte_level`: what `train.preparing.byte_level` says of the tokenizer of `prompts`."""
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._max_characters = _CHARACTERS_A_TOKEN * max_tokens
        self._is_byte_level = is_byte_level
        # Of a word that holds a control token as many as make a text worth a closer look.
        self._num_tokens: dict[str, int] = {}

    def faults(self, texts: Sequence[str]) -> list[tuple[str, str] | None]:
        """For each text the filter that it does not pass and why: `control_token`, `over_long`, or None."""
        found: list[tuple[str, str] | None] = [None] * len(texts)
        for index in self._doubtful(pa.array(texts, pa.large_string())):
            found[index] = self._exact(texts[index])
        return found

    def _doubtful(self, texts: pa.Array) -> list[int]:
        """Which texts may have too many tokens, or a control token."""
        is_short = pc.utf8_length(texts).to_numpy() <= self._max_characters
        doubtful = np.flatnonzero(is_short)
        if self._is_byte_level:
            # With the space before the text; the end token takes the last place.
            doubtful = doubtful[pc.binary_length(texts).to_numpy()[doubtful] + 1 >= self._max_tokens]
            doubtful = self._over(texts, doubtful)
            if len(doubtful) > _FEW_TEXTS:
                self._learn_words(texts.take(pa.array(doubtful[:_FEW_TEXTS])))
                doubtful = self._over(texts, doubtful)
        self._learn_words(texts.take(pa.array(doubtful)))
        doubtful = np.append(self._over(texts, doubtful), np.flatnonzero(~is_short))
        return list(doubtful.tolist())

    def _over(self, texts: pa.Array, indices: _Counts) -> _Counts:
        """Those of the texts whose words have as many tokens as the limit, or may have."""
        if not len(indices):
            return indices
        # Arrow tells the different words of a batch ten times as fast as a look-up for each of them.
        split = pc.split_pattern(texts.take(pa.array(indices)), " ")
        words = split.flatten().dictionary_encode()
        num_tokens = np.append(0, np.cumsum(self._num_tokens_of(words.dictionary)[words.indices.to_numpy()]))
        over: _Counts = indices[np.diff(num_tokens[split.offsets.to_numpy()]) >= self._max_tokens]
        return over

    def _learn_words(self, texts: pa.Array) -> None:
        self._learn(pc.split_pattern(texts, " ").flatten().unique().to_pylist())

    def _num_tokens_of(self, words: pa.Array) -> _Counts:
        """The tokens of each word with the space before it; of one not known, the most that there may be."""
        most = pc.binary_length(words).to_numpy() + 1 if self._is_byte_level else np.full(len(words), self._max_tokens)
        known = map(self._num_tokens.get, words.to_pylist(), most.tolist())
        return np.fromiter(known, np.int64, len(words))

    def _learn(self, words: list[str]) -> None:
        if len(self._num_tokens) > _MAX_WORDS:
            self._num_tokens.clear()
        new = [word for word in words if word not in self._num_tokens and len(word) <= _MAX_WORD_CHARACTERS]
        encoded = self._prompts.tokenizer.encode_texts([f" {word}" for word in new])
        counts = (self._max_tokens if ids is None else len(ids) for ids in encoded)
        self._num_tokens.update(zip(new, counts, strict=True))

    def _exact(self, text: str) -> tuple[str, str] | None:
        ids = self._prompts.completion_ids(text[: self._max_characters])
        if ids is None:
            return "control_token", "holds a token with a meaning of its own"
        if len(text) > self._max_characters:
            return "over_long", f"{len(text)} characters"
        return ("over_long", f"{len(ids)} tokens") if len(ids) > self._max_tokens else None
