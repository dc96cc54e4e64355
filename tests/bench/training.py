"""`make bench-train`: fine-tuning beside a plain TRL loop, on a model of TinyLlama-1.1B's shape with random weights.

Prints a JSON line a training, ours and the plain one of each preset: trained tokens a second (prompts included;
pads, evaluations, checkpoints and the first step, in which kernels are compiled, not), the peak of the card's
memory, and the loss over tenths of the training; then a line with how the two compare. Both see the same sequences
in the same order, as many a step. Pairs are invented, with the lengths of real ones and words as frequent as in a
language, so that there is something to learn.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.products import Product
from enrich.settings import Settings
from tests.bench.tinyllama import VOCABULARY, build_base, word_tokenizer
from train.pairs import Pair, read_record, rows_of
from train.settings import PRESETS, Preset

# Sequences that the plain loop takes at a time: on an H100 faster than with 4, though its mask grows with their square.
_PLAIN_SEQUENCES = 16
_TENTHS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["tinyllama-qlora", "tinyllama-lora"])
    parser.add_argument("--pairs", type=int, default=4000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENRICH_HOME"] = folder
        build_base(Path(folder) / "models" / "tinyllama", word_tokenizer())
        invent_pairs(Path(folder) / "data", options.pairs)
        for name in options.presets:
            ours, plain = (_in_a_process(loop, name, folder) for loop in ("ours", "plain"))
            print(json.dumps({"preset": name, **_comparison(ours, plain)}), flush=True)


def _in_a_process(loop: str, name: str, folder: str) -> dict[str, Any]:
    """One training in a process of its own: what it left on the card would count for the next."""
    code = f"import sys; from tests.bench.training import {loop}; {loop}(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, name, folder], check=True)
    measured = json.loads((Path(folder) / f"{loop}-{name}.json").read_text())
    print(json.dumps({"preset": name, "loop": loop, **measured}), flush=True)
    return measured  # type: ignore[no-any-return]


def _comparison(ours: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    differences = [abs(one - other) for one, other in zip(ours["losses"], plain["losses"], strict=True)]
    return {
        "times_plain": round(ours["tokens_per_second"] / plain["tokens_per_second"], 2),
        "greatest_difference_of_losses": round(max(differences), 4),
    }


def ours(name: str, folder: str) -> None:
    from train.finetune import finetune

    adapter = finetune(Path(folder) / "data", Path(folder) / name, Settings(), _preset(name)).folder
    training = json.loads((adapter / "training.json").read_text())
    _write(Path(folder) / f"ours-{name}.json", training, training["log"], training["peak_bytes"])


def plain(name: str, folder: str) -> None:
    """TRL, transformers and peft as they come; the data alone is ours."""
    import torch
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from enrich.engine.bases import find_base
    from enrich.engine.model import load_trainable
    from train import finetune
    from train.training.callbacks import Clock

    preset, data = _preset(name), Path(folder) / "data"
    base = find_base(preset.base, Path(folder))
    run = finetune._Run(data, Path(folder) / f"plain-{name}", Settings(), preset, base, read_record(data), bool)
    run.work.mkdir()
    writer = run._writer()
    sequences = run._packed("train", writer, None).with_format(None)
    clock = Clock(sum(map(sum, sequences["seq_lengths"])), torch.cuda.synchronize)
    trainer = SFTTrainer(
        model=load_trainable(base, dtype=torch.bfloat16, quantize=preset.quantize, device=torch.device("cuda")),
        args=SFTConfig(
            output_dir=str(run.work),
            num_train_epochs=preset.epochs,
            learning_rate=preset.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=run._arguments(len(sequences), False, torch.bfloat16, torch.device("cuda")).warmup_steps,
            per_device_train_batch_size=_PLAIN_SEQUENCES,
            gradient_accumulation_steps=preset.sequences_per_step // _PLAIN_SEQUENCES,
            gradient_checkpointing=preset.gradient_checkpointing,
            bf16=True,
            packing=True,
            max_length=preset.sequence_tokens,
            dataset_kwargs={"skip_prepare_dataset": True},
            shuffle_dataset=False,
            save_strategy="no",
            logging_steps=1,
            seed=finetune.SEED,
            data_seed=finetune.SEED,
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=sequences,
        processing_class=finetune._tokenizer(base, writer.tokenizer.eos_id),
        peft_config=finetune._lora(preset),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    measured = {
        "steps": trainer.state.global_step,
        "trained_tokens": clock.tokens,
        "tokens_per_second": clock.tokens_per_second,
        "first_step_seconds": round(clock.first_step_seconds, 1),
    }
    _write(Path(folder) / f"plain-{name}.json", measured, trainer.state.log_history, torch.cuda.max_memory_allocated())


def _preset(name: str) -> Preset:
    return replace(PRESETS[name], epochs=1)


def _write(file: Path, training: dict[str, Any], log: Sequence[dict[str, Any]], peak_bytes: int) -> None:
    told = {each: training[each] for each in ("steps", "trained_tokens", "tokens_per_second", "first_step_seconds")}
    losses = [each["loss"] for each in log if "loss" in each]
    cuts = [round(len(losses) * at / _TENTHS) for at in range(_TENTHS + 1)]
    tenths = [sum(losses[at:end]) / max(1, end - at) for at, end in pairwise(cuts)]
    told |= {"peak_gb": round(peak_bytes / 2**30, 2), "losses": [round(each, 4) for each in tenths]}
    file.write_text(json.dumps(told))


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


# The word of rank n comes up as often as 1/n (Zipf).
_WORDS = [f"w{i}" for i in range(3, VOCABULARY)]
_SHARES = list(accumulate(1 / rank for rank in range(1, len(_WORDS) + 1)))


def _words(chance: random.Random, num_words: int) -> str:
    return " ".join(chance.choices(_WORDS, cum_weights=_SHARES, k=num_words))


if __name__ == "__main__":
    main()
