"""The labelled pairs: texts with their rows, and every claim in them that the row does not support.

Written for this project, English and Portuguese, half of them with planted errors. A third was kept aside while the
rules were written: `python -m tests.quality.labelled` prints precision and recall by kind for either part, and with
`--show` what was missed or wrongly found in the part that the rules were written with.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enrich.products import Product
from enrich.quality.grounding import Grounding, Span
from enrich.quality.words import Text

_FOLDER = Path(__file__).parent
_EVERY = 3


@dataclass(frozen=True)
class Labelled:
    """A text, its row, and the spans that the row does not support."""

    id: str
    locale: str
    product: Product
    text: str
    unsupported: tuple[Span, ...]

    @property
    def is_aside(self) -> bool:
        """Whether it belongs to the third that the rules were not written with."""
        return int(self.id.split("-")[1]) % _EVERY == 0


@dataclass
class Tally:
    """By kind: claims labelled and found, labelled and missed, found and not labelled."""

    hit: Counter[str]
    missed: Counter[str]
    wrong: Counter[str]

    def recall(self, *kinds: str) -> float:
        hit, missed = (sum(counter[kind] for kind in kinds or counter) for counter in (self.hit, self.missed))
        return hit / max(1, hit + missed)

    def precision(self) -> float:
        return self.hit.total() / max(1, self.hit.total() + self.wrong.total())


def labelled() -> Iterator[Labelled]:
    for file in sorted(_FOLDER.glob("pairs_*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            product = Product(row["title"], tuple((name, str(value)) for name, value in row["attributes"].items()))
            spans = []
            for each in row["unsupported"]:
                start = row["text"].index(each["span"])
                spans.append(Span(each["kind"], start, start + len(each["span"])))
            yield Labelled(row["id"], row["locale"], product, row["text"], tuple(spans))


def tally(pairs: Sequence[Labelled], *, show: bool = False) -> Tally:
    """A found span hits a label of its kind that it overlaps; one that overlaps no label at all is wrong."""
    grounding, found = Grounding(), Tally(Counter(), Counter(), Counter())
    for pair in pairs:
        spans = grounding.unsupported(Text.of(pair.text), pair.product)
        missed = [each for each in pair.unsupported if not any(_hits(span, each) for span in spans)]
        wrong = [span for span in spans if not any(_overlap(span, each) for each in pair.unsupported)]
        found.missed.update(each.kind for each in missed)
        found.hit.update(each.kind for each in pair.unsupported if each not in missed)
        found.wrong.update(span.kind for span in wrong)
        if show and (missed or wrong):
            print(f"{pair.id} {pair.product}\n   {pair.text}")
            for what, some in (("missed", missed), ("wrong", wrong)):
                for each in some:
                    print(f"   {what} {each.kind}: {pair.text[each.start : each.end]!r}")
    return found


def _hits(span: Span, label: Span) -> bool:
    return span.kind == label.kind and _overlap(span, label)


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    pairs = list(labelled())
    for name, aside in (("written with", False), ("kept aside", True)):
        some = [pair for pair in pairs if pair.is_aside is aside]
        for locale in sorted({pair.locale for pair in some}):
            found = tally([pair for pair in some if pair.locale == locale], show=options.show and not aside)
            print(f"{name}, {locale}: precision {found.precision():.1%}, recall {found.recall():.1%}")
            for kind in sorted(found.hit | found.missed | found.wrong):
                print(
                    f"  {kind}: recall {found.recall(kind):.1%} of {found.hit[kind] + found.missed[kind]}, "
                    f"{found.wrong[kind]} wrong"
                )


if __name__ == "__main__":
    main()
