"""What today's judge makes of the texts that are remembered, and which of a product's texts is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from enrich.memory import Memory, Remembered, Review, Verdict
from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.recipe import product_key

# How texts end that the model did not write, and the code for it: it could not even alone, or the title cannot be said
# without a control token.
NOT_WRITTEN = {"failed": "model_failed", "refused": "control_token"}


class Verdicts:
    """The memory as a judge sees it: a text without a verdict of today's policy is judged and its verdict stored."""

    def __init__(self, memory: Memory, judge: Judge) -> None:
        self._memory, self._judge = memory, judge

    def recall(self, products: Mapping[bytes, Product]) -> dict[bytes, list[Remembered]]:
        """The texts of products by their keys, in the order of their attempts; keys without a text are left out."""
        texts = self._memory.recall(products.keys(), self._judge.policy)
        unjudged = {
            text.text_id: verdict_on(self._judge, text.completion, text.ended, products[key])
            for key, some in texts.items()
            for text in some
            if text.verdict is None
        }
        if not unjudged:
            return texts
        self._memory.add_verdicts(unjudged)
        return {
            key: [replace(text, verdict=unjudged.get(text.text_id, text.verdict)) for text in some]
            for key, some in texts.items()
        }

    def unreviewed(self, products: Mapping[bytes, Product]) -> dict[bytes, list[Remembered]]:
        """The same of the products that nobody has decided about, in their order."""
        texts = self.recall(products)
        decided = decisions(self._memory, {key: products[key] for key in texts})
        return {key: texts[key] for key in products if key in texts and key not in decided}


def decisions(memory: Memory, products: Mapping[bytes, Product]) -> dict[bytes, Review]:
    """What people decided about products, by the keys of their texts; products that nobody reviewed are left out."""
    if not memory.has_reviews:
        return {}
    keys = {key: product_key(product) for key, product in products.items()}
    decided = memory.reviews(keys.values())
    return {key: decided[product] for key, product in keys.items() if product in decided}


def verdict_on(judge: Judge, completion: str, ended: str, product: Product) -> Verdict:
    """The verdict to remember; a text that was not written is none to judge."""
    if ended in NOT_WRITTEN:
        return Verdict(judge.policy, "hold")
    found = judge.judge(completion, ended, product)
    return Verdict(judge.policy, found.action, found.text, found.flags, found.score)


def best(texts: Sequence[Remembered]) -> Remembered:
    """Of a product's texts the one to publish, else the one to show: by score, of equals the first."""
    return max(texts, key=lambda text: (may_be_published(text), _score(text), -text.attempt))


def may_be_published(text: Remembered) -> bool:
    """Whether it may go out without a person; an empty text never does."""
    return (
        text.ended not in NOT_WRITTEN
        and not text.withdrawn
        and text.judged.action == "publish"
        and bool(text.judged.text)
    )


def is_held(texts: Sequence[Remembered]) -> bool:
    """Whether the model wrote some, and none may be published."""
    found = best(texts)
    return found.ended not in NOT_WRITTEN and not may_be_published(found)


def is_to_be_tried_again(texts: Sequence[Remembered]) -> bool:
    """Whether none may be published, and the latest asks for another attempt; one that was not written asks for none.

    The memory answers the same of a whole catalogue (`is_unsettled`): a row's fate must not depend on its neighbours'.
    """
    latest = texts[-1]
    return (
        not may_be_published(best(texts))
        and latest.ended not in NOT_WRITTEN
        and not latest.withdrawn
        and latest.judged.action == "retry"
    )


def _score(text: Remembered) -> int:
    return -1 if text.judged.score is None else text.judged.score
