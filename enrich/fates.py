"""What becomes of each row that misses its description, from what the memory holds."""

from collections.abc import Collection, Sequence

from enrich.catalog.columns import Gap
from enrich.memory import Memory, Remembered, Review, Verdict
from enrich.plan import RecipeOf, Wanted, products_with_keys
from enrich.products import Description
from enrich.quality.rules import POLICY, judge
from enrich.recipe import product_key

TITLE_CUT = "title_cut"
# Why the model wrote nothing: it could not even alone, or the title cannot be said without a control token.
NOT_WRITTEN = {"failed": "model_failed", "refused": "control_token"}

# How many published texts the summary shows.
_NUM_SAMPLES = 3


class Fates:
    """Decides batches of gaps; what a person decided wins over any model. Keeps the first texts as samples."""

    def __init__(self, memory: Memory, recipe_of: RecipeOf) -> None:
        self.samples: list[tuple[str, str]] = []
        self._memory = memory
        self._recipe_of = recipe_of

    def decide(self, gaps: Sequence[Gap]) -> list[Description]:
        """One fate for each gap, in order."""
        asked = products_with_keys(gaps, self._recipe_of)
        wanted = dict(each for each in asked if not isinstance(each, str))
        reviewed = {key: product_key(product) for key, product in wanted.items()}
        texts = self._recall(wanted.keys())
        reviews = self._memory.reviews(reviewed.values())
        fates = [
            Description("rejected", flags=(each,))
            if isinstance(each, str)
            else _fate(texts.get(each[0]), reviews.get(reviewed[each[0]]))
            for each in asked
        ]
        self._keep_samples(gaps, asked, fates)
        return fates

    def _recall(self, keys: Collection[bytes]) -> dict[bytes, Remembered]:
        """The remembered texts, each with today's verdict: made and stored where there is none yet."""
        texts = self._memory.recall(keys, POLICY)
        unjudged = {key: text for key, text in texts.items() if not text.judged}
        if unjudged:
            self._memory.add_verdicts([_verdict(text) for text in unjudged.values()])
            texts.update(self._memory.recall(unjudged.keys(), POLICY))
        return texts

    def _keep_samples(self, gaps: Sequence[Gap], asked: Sequence[Wanted | str], fates: Sequence[Description]) -> None:
        for gap, each, fate in zip(gaps, asked, fates, strict=True):
            if len(self.samples) == _NUM_SAMPLES:
                return
            if fate.text and not isinstance(each, str):
                title = each[1].title
                self.samples.append((title if gap.id is None else f"{gap.id} · {title}", fate.text))


def _verdict(text: Remembered) -> Verdict:
    judged = judge(text.completion, text.ended)
    return Verdict(text.text_id, POLICY, judged.text, judged.flags, judged.score)


def _fate(text: Remembered | None, review: Review | None) -> Description:
    if review is not None:
        return Description("approved", review.text) if review.text else Description("held", flags=(review.verdict,))
    if text is None:
        return Description("pending")
    if text.ended in NOT_WRITTEN:
        return Description("rejected", flags=(NOT_WRITTEN[text.ended],))
    flags = (*text.flags, *([TITLE_CUT] if text.cut else []))
    if text.text is None:
        return Description("held", None, flags, text.score)
    return Description("generated", text.text, flags, text.score)
