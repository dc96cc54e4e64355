"""What becomes of each row that misses its description, from what the memory holds."""

from collections.abc import Iterator, Mapping, Sequence

from enrich.catalog.columns import Gap
from enrich.memory import Memory, Remembered, Review
from enrich.plan import RecipeOf, products_with_keys
from enrich.products import Description, Product
from enrich.quality.alike import Alike
from enrich.quality.judge import Judge
from enrich.report.gallery import Gallery, Shown
from enrich.verdicts import NOT_WRITTEN, Verdicts, best, decisions, may_be_published

TITLE_CUT, WITHDRAWN = "title_cut", "withdrawn"


class Fates:
    """Decides batches of gaps; what a person decided wins over any model. Shows every text to the gallery."""

    def __init__(self, memory: Memory, judge: Judge, recipe_of: RecipeOf, gallery: Gallery) -> None:
        self.alike = Alike()
        self._memory = memory
        self._verdicts = Verdicts(memory, judge)
        self._recipe_of = recipe_of
        self._gallery = gallery

    def decide(self, start: int, gaps: Sequence[Gap]) -> list[Description]:
        """One fate for each gap of the batch whose first row is `start`, in order."""
        asked = products_with_keys(gaps, self._recipe_of)
        wanted = dict(each for each in asked if not isinstance(each, str))
        texts = self._verdicts.recall(wanted)
        decided = decisions(self._memory, wanted)
        fates = [
            Description("rejected", flags=(each,))
            if isinstance(each, str)
            else _fate(texts.get(each[0]), decided.get(each[0]))
            for each in asked
        ]
        shown = list(_shown(start, gaps, asked, fates, texts))
        self._gallery.add(shown)
        self.alike.add((each.key, each.text) for each in shown if each.status != "held")
        return fates


def _shown(
    start: int,
    gaps: Sequence[Gap],
    asked: Sequence[tuple[bytes, Product] | str],
    fates: Sequence[Description],
    texts: Mapping[bytes, Sequence[Remembered]],
) -> Iterator[Shown]:
    """The texts of a batch; of what is held, the best."""
    for gap, each, fate in zip(gaps, asked, fates, strict=True):
        if isinstance(each, str):
            continue
        key, product = each
        text = best(texts[key]).judged.text if fate.status == "held" and key in texts else fate.text
        if text:
            row_id = None if gap.id is None else str(gap.id)
            yield Shown(key, start + gap.index, row_id, product, text, fate.status, fate.score, fate.flags)


def _fate(texts: Sequence[Remembered] | None, review: Review | None) -> Description:
    if review is not None:
        return Description("approved", review.text) if review.text else Description("held", flags=(review.verdict,))
    if not texts:
        return Description("pending")
    text = best(texts)
    if text.ended in NOT_WRITTEN:
        return Description("rejected", flags=(NOT_WRITTEN[text.ended],))
    verdict = text.judged
    flags = (*verdict.flags, *([TITLE_CUT] if text.cut else []), *([WITHDRAWN] if text.withdrawn else []))
    if may_be_published(text):
        return Description("generated", verdict.text, flags, verdict.score)
    return Description("held", None, flags, verdict.score)
