"""`make bench-night`: a whole night on a CUDA card, with the embedded model and the adapter in force, or with a base of
TinyLlama's shape and random weights.

A Parquet catalogue of which one row in ten misses its description is enriched by `enrich.run`; then the same prompts go
through the engine alone. Prints one JSON line a figure: the rate of the engine within the night, from its first prefill
until the last text was committed, against its own.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from enrich.author import Author
from enrich.engine.protocol import Figures, Request
from enrich.engine.tiers import Stored, Wish, open_engine
from enrich.night import run
from enrich.products import Product
from enrich.report.summary import lines
from enrich.settings import Settings, load_settings
from tests.bench.engine import tell
from tests.bench.tinyllama import build_base, trained_tokenizer

# Every text is judged, none is tried again: further rounds would write others than the engine alone does.
ONE_ROUND = {"quality": {"retries": 0}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--titles", type=Path, required=True, help="JSON lines with a title each")
    parser.add_argument("--missing", type=int, default=20_000)
    parser.add_argument("--tinyllama", action="store_true", help="a base of that shape and no adapter")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    titles = read_titles(options.titles, options.missing)
    with tempfile.TemporaryDirectory() as folder:
        settings = (
            tinyllama_settings(Path(folder) / "base", titles)
            if options.tinyllama
            else load_settings(overrides=ONE_ROUND)
        )
        night = measure_night(Path(folder), titles, settings)
        alone = measure_engine(titles, settings)
    tell("engine within the night, of its own rate", share=night / alone)


def tinyllama_settings(folder: Path, titles: list[str]) -> Settings:
    build_base(folder, trained_tokenizer(titles))
    return load_settings(overrides={"model": {"base": str(folder), "adapter": "none"}, **ONE_ROUND})


def read_titles(path: Path, count: int) -> list[str]:
    """Different titles; with a number behind them where the file has too few."""
    with path.open(encoding="utf-8") as stream:
        found = list(dict.fromkeys(json.loads(line)["title"] for line in stream))
    return [found[at % len(found)] + (f" {at // len(found)}" if at >= len(found) else "") for at in range(count)]


def measure_night(folder: Path, titles: list[str], settings: Settings) -> float:
    catalogue = folder / "catalog.parquet"
    rows = [(title, None if part == 0 else "A description.") for title in titles for part in range(10)]
    names, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"id": range(len(rows)), "title": names, "description": texts}), catalogue)
    started = time.perf_counter()
    (summary,) = run(catalogue, folder / "out.parquet", settings).summaries
    seconds = time.perf_counter() - started
    print(*lines(summary)[:6], sep="\n", flush=True)
    assert summary.engine
    tell_engine("night", summary.engine, summary.written)
    tell(
        "night, apart",
        whole_s=seconds,
        before_the_first_prefill_s=summary.generating_seconds - summary.engine.seconds,
        publishing_s=summary.publishing_seconds,
    )
    return summary.engine.tokens / summary.engine.seconds


def measure_engine(titles: list[str], settings: Settings) -> float:
    author = Author.choose(settings)
    assert author.base
    model = author.load()
    prompts = author.prompts.write([Product(title) for title in titles])
    requests = [Request(at.to_bytes(16, "big"), each.ids) for at, each in enumerate(prompts) if each.ids]
    wish = Wish.of(author.settings, author.prompts.prefix_ids)
    kept: dict[str, str] = {}
    engine = open_engine(model, wish, Stored(kept.get, kept.__setitem__), lambda: False, kind="grid")
    done = list(engine.generate(requests))
    assert engine.figures
    tell_engine("engine alone", engine.figures, len(done), ended=sum(each.ended == "eos" for each in done) / len(done))
    return engine.figures.tokens / engine.figures.seconds


def tell_engine(figure: str, found: Figures, rows: int, **more: float) -> None:
    tell(
        figure,
        card=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        rows=rows,
        seconds=found.seconds,
        rows_per_s=rows / found.seconds,
        tokens_per_s=found.tokens / found.seconds,
        slot_use=found.slot_use,
        padding_share=found.padding_share,
        decode_seconds=found.decode_seconds,
        prefill_seconds=found.prefill_seconds,
        share_without_kernels=1 - (found.decode_seconds + found.prefill_seconds) / found.seconds,
        **more,
    )


if __name__ == "__main__":
    main()
