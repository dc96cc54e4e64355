"""What is measured of a contender's texts. Knows texts, not models.

Shares and ROUGE-L are between 0 and 1, chrF between 0 and 100 as its authors give it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.chrf import CHRF

from enrich.engine.protocol import Ended
from enrich.products import Product
from train.measuring.quantities import quantities, unsupported

_WORD = re.compile(r"\w+")
_OPENING_WORDS = 3
_NGRAM = 4


@dataclass(frozen=True, slots=True)
class Written:
    """A text that a contender wrote of a held-out product, and the description that somebody wrote of it."""

    product: Product
    reference: str
    text: str
    ended: Ended


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is measured of one contender over the same held-out rows.

    `loss` is in nats per token, `loss_per_byte` in nats per UTF-8 byte of the references: contenders whose
    tokenizers differ can only be compared by the latter. Both count the end token. An empty text is no ended one.
    """

    num_rows: int
    num_tokens: int
    loss: float
    loss_per_byte: float
    chrf: float
    rouge_l: float
    ended: float
    length_ratio: float
    distinct_openings: float
    title_copies: float
    repetition: float
    num_numbers: int
    unsupported_numbers: float
    texts_with_unsupported: float


def measure(written: Sequence[Written], nats: float, num_tokens: int) -> Figures:
    """Figures of at least one text; `nats` is the cross entropy summed over the references' `num_tokens`."""
    texts = [each.text for each in written]
    references = [each.reference for each in written]
    invented = [len(unsupported(each.text, each.product)) for each in written]
    num_numbers = sum(len(quantities(text)) for text in texts)
    return Figures(
        num_rows=len(written),
        num_tokens=num_tokens,
        loss=nats / num_tokens,
        loss_per_byte=nats / sum(len(reference.encode()) for reference in references),
        chrf=chrf(texts, references),
        rouge_l=rouge_l(texts, references),
        ended=_share(each.ended == "eos" and bool(each.text) for each in written),
        length_ratio=sum(map(len, texts)) / sum(map(len, references)),
        distinct_openings=distinct_openings(texts),
        title_copies=_share(copies_title(each.text, each.product.title) for each in written),
        repetition=fmean(map(repetition, texts)),
        num_numbers=num_numbers,
        unsupported_numbers=sum(invented) / max(num_numbers, 1),
        texts_with_unsupported=_share(map(bool, invented)),
    )


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0-100 (Popović 2015, as in sacrebleu)."""
    return float(CHRF().corpus_score(list(texts), [list(references)]).score)


def rouge_l(texts: Sequence[str], references: Sequence[str]) -> float:
    """Mean F-measure of the longest common subsequence of words (Lin 2004, as in rouge-score)."""
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    scores = [scorer.score(reference, text) for text, reference in zip(texts, references, strict=True)]
    return fmean(score["rougeL"].fmeasure for score in scores)


def distinct_openings(texts: Sequence[str]) -> float:
    """The share of the texts' first three words that are distinct: near 0 when all texts begin alike."""
    return len({tuple(_words(text)[:_OPENING_WORDS]) for text in texts}) / len(texts)


def copies_title(text: str, title: str) -> bool:
    """Whether a text is the title, or begins with it and adds fewer than three words."""
    said, copied = _words(text), _words(title)
    return said[: len(copied)] == copied and len(said) - len(copied) < _OPENING_WORDS


def repetition(text: str) -> float:
    """The share of a text's 4-grams of words that it has said before; 0 for a text too short to have any."""
    words = _words(text)
    grams = [tuple(words[at : at + _NGRAM]) for at in range(len(words) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _share(holds: Iterable[bool]) -> float:
    return fmean(map(float, holds))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


class _Words:
    """For rouge-score, whose own tokenizer drops every letter that is not ASCII: `descrição` would be `descri o`."""

    def tokenize(self, text: str) -> Iterable[str]:
        return _words(text)
