"""`make bench-train`: fine-tuning speed and memory by preset, on a model of TinyLlama-1.1B's shape with random weights.

Prints one JSON line a preset: trained tokens a second (prompts included, evaluations and checkpoints not) and the
peak of the card's memory. Pairs are invented, with the lengths of real ones.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.products import Product
from enrich.settings import Settings
from tests.bench.tinyllama import VOCABULARY, build_base, word_tokenizer
from train.pairs import Pair, rows_of
from train.settings import PRESETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["tinyllama-qlora", "tinyllama-lora"])
    parser.add_argument("--pairs", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENRICH_HOME"] = folder
        build_base(Path(folder) / "models" / "tinyllama", word_tokenizer())
        invent_pairs(Path(folder) / "data", options.pairs)
        for name in options.presets:
            # A process of its own: what one preset left on the card would count for the next.
            subprocess.run([sys.executable, "-c", _RUN, name, folder], check=True)


_RUN = "import sys; from tests.bench.training import measure; measure(*sys.argv[1:])"


def measure(name: str, folder: str) -> None:
    from train.finetune import finetune

    preset = replace(PRESETS[name], epochs=1)
    adapter = finetune(Path(folder) / "data", Path(folder) / name, Settings(), preset).folder
    training = json.loads((adapter / "training.json").read_text())
    told = {each: training[each] for each in ("tokens_per_second", "trained_tokens", "steps")}
    print(json.dumps({"preset": name, **told, "peak_gb": round(training["peak_bytes"] / 2**30, 2)}), flush=True)


def invent_pairs(folder: Path, num_pairs: int) -> None:
    """A prepared folder; titles of 6-40 words, descriptions of 16-250, 90 at the median."""
    folder.mkdir()
    chance = random.Random(0)
    pairs = [
        Pair(Product(_words(chance, chance.randint(6, 40))), _words(chance, _description_words(chance)))
        for _ in range(num_pairs)
    ]
    for split, chosen in (("train", pairs[100:]), ("validation", pairs[:50]), ("test", pairs[50:100])):
        pq.write_table(pa.Table.from_batches([rows_of(chosen)]), folder / f"{split}.parquet")
    record = {"digest": "invented", "inputs": [], "seed": 0, "options": {"validation_share": 0.05, "test_share": 0.05}}
    (folder / "prepare.json").write_text(json.dumps(record))


def _description_words(chance: random.Random) -> int:
    return min(250, max(16, round(chance.lognormvariate(4.5, 0.5))))


def _words(chance: random.Random, num_words: int) -> str:
    return " ".join(f"w{chance.randrange(3, VOCABULARY)}" for _ in range(num_words))


if __name__ == "__main__":
    main()
