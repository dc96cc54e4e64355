"""`make bench-cards`: the same catalogue on one card and on all of this machine, through Ray, in one go.

Every row misses its description; the base has TinyLlama's shape and random weights. Rates are from the first committed
texts to the last ones. Prints one JSON line a figure, and whether the published bytes are the same.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.night import run
from enrich.report.summary import Summary
from enrich.settings import load_settings
from tests.bench.engine import tell
from tests.bench.night import ONE_ROUND, read_titles
from tests.bench.tinyllama import build_base, trained_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--titles", type=Path, required=True, help="JSON lines with a title each")
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--gpus", type=int, nargs="+", default=[2], help="numbers of cards to hold against one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    titles = read_titles(options.titles, options.rows)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        build_base(folder / "base", trained_tokenizer(titles))
        catalogue = folder / "catalogue.parquet"
        missing = pa.nulls(len(titles), pa.string())
        pq.write_table(pa.table({"id": range(len(titles)), "title": titles, "description": missing}), catalogue)
        alone, rate = _measure(catalogue, folder, None)
        for gpus in options.gpus:
            found, several = _measure(catalogue, folder, gpus)
            tell("cards over one", cards=gpus, times=several / rate, same_bytes=found == alone)


def _measure(catalogue: Path, folder: Path, gpus: int | None) -> tuple[bytes, float]:
    output, state = folder / f"{gpus}.parquet", folder / f"state {gpus}"
    machine = {"state": state, **({"gpus": gpus} if gpus else {})}
    settings = load_settings(
        overrides={"model": {"base": str(folder / "base"), "adapter": "none"}, "machine": machine, **ONE_ROUND}
    )
    (summary,) = run(catalogue, output, settings).summaries
    rate = _rate(summary)
    tell(
        "cards",
        cards=gpus or 1,
        device=str(summary.device),
        rows=summary.written,
        rows_per_s=rate,
        before_the_first_text_s=summary.timeline[0][0],
        generating_s=summary.generating_seconds,
        publishing_s=summary.publishing_seconds,
    )
    for worker in summary.workers:
        print(worker, flush=True)
    return output.read_bytes(), rate


def _rate(summary: Summary) -> float:
    (began, before, _), *_, (ended, texts, _) = summary.timeline
    return (texts - before) / (ended - began)


if __name__ == "__main__":
    main()
