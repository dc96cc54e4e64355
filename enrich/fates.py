"""What becomes of each row that misses its description, from what the memory holds."""

from collections.abc import Sequence

from enrich.catalog.columns import Gap
from enrich.memory import Memory, Remembered, Review
from enrich.plan import RecipeOf, products_with_keys
from enrich.products import Description, Product
from enrich.quality.alike import Alike
from enrich.quality.judge import Judge
from enrich.recipe import product_key
from enrich.verdicts import NOT_WRITTEN, Verdicts, best, may_be_published

TITLE_CUT = "title_cut"
# How many published texts the summary shows.
_NUM_SAMPLES = 3


class Fates:
    """Decides batches of gaps; what a person decided wins over any model. Keeps the first texts as samples."""

    def __init__(self, memory: Memory, judge: Judge, recipe_of: RecipeOf) -> None:
        self.samples: list[tuple[str, str]] = []
        self.alike = Alike()
        self._memory = memory
        self._verdicts = Verdicts(memory, judge)
        self._recipe_of = recipe_of

    def decide(self, gaps: Sequence[Gap]) -> list[Description]:
        """One fate for each gap, in order."""
        asked = products_with_keys(gaps, self._recipe_of)
        wanted = dict(each for each in asked if not isinstance(each, str))
        reviewed = {key: product_key(product) for key, product in wanted.items()}
        texts = self._verdicts.recall(wanted)
        reviews = self._memory.reviews(reviewed.values())
        fates = [
            Description("rejected", flags=(each,))
            if isinstance(each, str)
            else _fate(texts.get(each[0]), reviews.get(reviewed[each[0]]))
            for each in asked
        ]
        self._keep_samples(gaps, asked, fates)
        self.alike.add(
            (each[0], fate.text)
            for each, fate in zip(asked, fates, strict=True)
            if fate.text and not isinstance(each, str)
        )
        return fates

    def _keep_samples(
        self, gaps: Sequence[Gap], asked: Sequence[tuple[bytes, Product] | str], fates: Sequence[Description]
    ) -> None:
        for gap, each, fate in zip(gaps, asked, fates, strict=True):
            if len(self.samples) == _NUM_SAMPLES:
                return
            if fate.text and not isinstance(each, str):
                title = each[1].title
                self.samples.append((title if gap.id is None else f"{gap.id} · {title}", fate.text))


def _fate(texts: Sequence[Remembered] | None, review: Review | None) -> Description:
    if review is not None:
        return Description("approved", review.text) if review.text else Description("held", flags=(review.verdict,))
    if not texts:
        return Description("pending")
    text = best(texts)
    if text.ended in NOT_WRITTEN:
        return Description("rejected", flags=(NOT_WRITTEN[text.ended],))
    verdict = text.judged
    flags = (*verdict.flags, *([TITLE_CUT] if text.cut else []))
    if may_be_published(text):
        return Description("generated", verdict.text, flags, verdict.score)
    return Description("held", None, flags, verdict.score)
