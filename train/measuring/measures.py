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
from enrich.quality.judge import Judge
from enrich.quality.quantities import quantities
from enrich.quality.rules import copies_title, repetition
from enrich.quality.words import Text, words_of

_WORD = re.compile(r"\w+")
_OPENING_WORDS = 3


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
    Unsupported numbers and claims, and the texts that would be held, are what the judge of the night finds.
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
    texts_with_claims: float
    held: float


def measure(written: Sequence[Written], nats: float, num_tokens: int, judge: Judge) -> Figures:
    """Figures of at least one text; `nats` is the cross entropy summed over the references' `num_tokens`."""
    texts = [each.text for each in written]
    references = [each.reference for each in written]
    spans = [[span.kind for span in judge.spans(each.text, each.product)] for each in written]
    invented = [kinds.count("number") for kinds in spans]
    read = map(Text.of, texts)
    num_numbers = sum(len(quantities(text.folded, text.words)) for text in read)
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
        repetition=fmean(repetition(words_of(text)) for text in texts),
        num_numbers=num_numbers,
        unsupported_numbers=sum(invented) / max(num_numbers, 1),
        texts_with_unsupported=_share(map(bool, invented)),
        texts_with_claims=_share(map(bool, spans)),
        held=_share(judge.judge(each.text, each.ended, each.product).action != "publish" for each in written),
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


def _share(holds: Iterable[bool]) -> float:
    return fmean(map(float, holds))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


class _Words:
    """For rouge-score, whose own tokenizer drops every letter that is not ASCII: `descrição` would be `descri o`."""

    def tokenize(self, text: str) -> Iterable[str]:
        return _words(text)
