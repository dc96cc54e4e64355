"""`prepare.html`: the funnel, the lengths, and samples of what was dropped and of what stayed."""

from typing import Any

from train.page import render
from train.preparing.funnel import CUT, FILTERS, Funnel
from train.preparing.prepared_folder import Histogram, Written


def prepare_page(record: dict[str, Any], funnel: Funnel, written: Written) -> str:
    """The page, self-contained; `record` is what prepare.json says."""
    return render(
        "prepare.html",
        title="Prepared pairs",
        record=record,
        num_rows=funnel.num_rows,
        num_cut=funnel.counts[CUT],
        steps=_steps(funnel),
        splits=written.splits,
        empty=[split for split, count in written.splits.items() if not count],
        histograms={
            "Title, characters": _bars(written.title_lengths),
            "Description, characters": _bars(written.description_lengths),
        },
        dropped={name: funnel.samples[name] for name in (*FILTERS, CUT) if funnel.samples.get(name)},
        kept=written.samples,
    )


def _steps(funnel: Funnel) -> list[dict[str, Any]]:
    left = funnel.num_rows
    steps = []
    for name, count in funnel.dropped.items():
        left -= count
        share = 100 * left / max(1, funnel.num_rows)
        steps.append({"name": name, "why": FILTERS[name], "dropped": count, "left": left, "share": round(share, 2)})
    return steps


def _bars(histogram: Histogram) -> list[dict[str, Any]]:
    """Bars 100 high at most."""
    highest = max(1, int(histogram.counts.max()))
    return [
        {
            "start": index * histogram.width,
            "stop": (index + 1) * histogram.width - 1 if index < len(histogram.counts) - 1 else None,
            "count": count,
            "height": round(100 * count / highest, 1),
        }
        for index, count in enumerate(histogram.counts.tolist())
    ]
