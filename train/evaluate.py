"""Runs the contenders over held-out pairs, one after another, and measures what they write.

All see the same products, greedy, at the lengths of the settings. A text is measured as it would reach the shop.
"""

import gc
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from enrich.engine.adapter import Adapter, read_adapter
from enrich.engine.model import Model, load_model
from enrich.engine.protocol import Completion, Generator, Request
from enrich.engine.tiers import Stored, Wish, open_engine
from enrich.errors import CatalogueError, Stopped
from enrich.prompt import ModelTokenizer, PromptWriter
from enrich.quality.judge import Judge
from enrich.settings import Settings
from train.measuring.contenders import BASE, IN_FORCE, NEW, Contender, contenders, unseen
from train.measuring.evaluation import Evaluation, save
from train.measuring.gate import Decision, decide, refuse
from train.measuring.measures import Figures, Written, measure
from train.pairs import Pair, read_pairs, read_record
from train.training.packed import NO_LOSS

# isort: split
# After `enrich.engine.model`, which tells the libraries to stay off the network.
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

NUM_SAMPLES = 30
"""Rows shown side by side."""

# Tokens of a batch, pads included: its logits take as many times the vocabulary.
_MAX_BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
_STOPPED = "stopped while evaluating; nothing is written, run again"
# Nothing is gone on with: a measurement is begun anew.
_KEPT_NOWHERE = Stored(get=lambda _: None, put=lambda *_: None)


@dataclass(frozen=True, slots=True)
class Example:
    """A held-out pair in ids; the completion ends with the end token."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Of both together."""
        return len(self.prompt_ids) + len(self.completion_ids)


def evaluate(
    folder: Path,
    adapter: Path | None,
    settings: Settings,
    out: Path,
    *,
    split: str = "test",
    max_rows: int | None = None,
    against: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Measures `adapter` and the one it is `against` (None: the bare base) on the prepared `folder`, into `out`.

    Without `adapter` it measures the base and decides nothing; on another split than `test` likewise. Raises
    `NoInput` or `CatalogueError` for the data, `ModelUnavailable` or `SettingsError` for a model that cannot be
    run, and `Stopped`, with nothing written, when `should_stop` said so; whether the adapter is better is no error
    either way.
    """
    record, pairs = read_record(folder), read_pairs(folder, split)
    if not pairs:
        raise CatalogueError(f"{folder}: its {split} split is empty; prepare more rows or a larger share", "no_rows")
    new = read_adapter(adapter) if adapter else None
    in_force = read_adapter(against) if against else None
    lineup = contenders(new, in_force, settings)
    comparable, obstacle = unseen(pairs, split, [each.adapter for each in lineup if each.adapter])
    candidates = comparable or pairs
    chosen = [candidates[at] for at in choose(candidates, max_rows)]
    rows, examples = _sayable(chosen, lineup, settings)
    if not rows:
        raise CatalogueError(f"{folder}: no {split} row can be said in tokens; prepare it again", "no_rows")
    results = {each.name: _run(each, rows, examples[each.name], settings, should_stop) for each in lineup}
    figures = {name: result for name, (result, _) in results.items()}
    shown = choose(rows, NUM_SAMPLES)
    evaluation = Evaluation(
        split=split,
        contenders=tuple(lineup),
        figures=figures,
        samples={name: [written[at] for at in shown] for name, (_, written) in results.items()},
        in_force=in_force.digest if in_force else None,
        decision=_decision(figures, obstacle, new, in_force) if new and split == "test" else None,
        num_seen=len(pairs) - len(candidates),
        num_unsayable=len(chosen) - len(rows),
    )
    save(evaluation, record, settings, out)
    return evaluation


def _decision(figures: dict[str, Figures], obstacle: str | None, new: Adapter, in_force: Adapter | None) -> Decision:
    if obstacle:
        return refuse(figures[NEW], obstacle)
    if in_force and in_force.digest == new.digest:
        return refuse(figures[NEW], f"{new.folder}: is the adapter in force already")
    return decide(figures[NEW], figures.get(IN_FORCE, figures[BASE]))


def choose(pairs: Sequence[Pair], max_rows: int | None) -> list[int]:
    """Where at most so many pairs are, ascending: the same pairs wherever they stand and whatever is beside them."""
    if max_rows is None or len(pairs) <= max_rows:
        return list(range(len(pairs)))
    ranks = [hashlib.blake2b(f"{pair.product!r}{pair.description!r}".encode()).digest() for pair in pairs]
    return sorted(sorted(range(len(pairs)), key=ranks.__getitem__)[:max_rows])


def examples_of(pairs: Sequence[Pair], writer: PromptWriter) -> list[Example | None]:
    """Each pair in the ids of training and generation; None for one that cannot be said."""
    examples: list[Example | None] = []
    for pair, prompt in zip(pairs, writer.write([pair.product for pair in pairs]), strict=True):
        completion = writer.completion_ids(pair.description)
        unsayable = prompt.refused or completion is None
        examples.append(None if unsayable else Example(prompt.ids, tuple(completion or ())))
    return examples


def _sayable(
    pairs: Sequence[Pair], lineup: Sequence[Contender], settings: Settings
) -> tuple[list[Pair], dict[str, list[Example]]]:
    """The pairs that every contender can be asked about, and under each contender's name the same in its ids."""
    asked = {each.name: examples_of(pairs, each.prompts(settings.text.max_prompt_tokens)) for each in lineup}
    is_sayable = [all(examples) for examples in zip(*asked.values(), strict=True)]
    return list(compress(pairs, is_sayable)), {
        name: [example for example, sayable in zip(examples, is_sayable, strict=True) if example and sayable]
        for name, examples in asked.items()
    }


def _run(
    contender: Contender,
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    settings: Settings,
    should_stop: Callable[[], bool],
) -> tuple[Figures, list[Written]]:
    """Figures and texts of one contender, asked about `pairs` in its ids. Its model is gone when this returns."""
    text = settings.text
    model = load_model(
        contender.base,
        contender.adapter,
        dtype=text.dtype,
        quantize=text.quantize,
        device=settings.machine.device,
    )
    with _bar(f"{contender.name}: loss", len(pairs)) as bar:
        nats = completion_nats(model, examples, bar.update, should_stop)
    with _bar(f"{contender.name}: texts", len(pairs)) as bar:
        wish = Wish.of(settings, contender.prompts(text.max_prompt_tokens).prefix_ids)
        engine = open_engine(model, wish, _KEPT_NOWHERE, should_stop, kind=settings.machine.engine)
        completions = _generate(engine, examples, bar.update)
    del model, engine
    gc.collect()
    torch.cuda.empty_cache()
    tokenizer = ModelTokenizer.load(contender.base.folder)
    judge = Judge(settings.quality, contender.template.instruction)
    texts = tokenizer.decode_all([completion.ids for completion in completions])
    written = [
        Written(
            pair.product,
            pair.description,
            judge.judge(text, completion.ended, pair.product).text or "",
            completion.ended,
        )
        for pair, completion, text in zip(pairs, completions, texts, strict=True)
    ]
    return measure(written, nats, sum(len(example.completion_ids) for example in examples), judge), written


def _bar(what: str, num_rows: int) -> Any:
    return tqdm(total=num_rows, desc=what, unit="row", disable=not sys.stderr.isatty())


def completion_nats(
    model: Model, examples: Sequence[Example], done: Callable[[int], object], should_stop: Callable[[], bool]
) -> float:
    """The cross entropy of every completion token under `model` given all before it, summed, in nats.

    Teacher forced. `done` is called with the number of rows of each batch.
    """
    nats = 0.0
    for batch in _batches(examples, _MAX_BATCH_TOKENS.get(model.device.type, _MAX_BATCH_TOKENS["cpu"])):
        if should_stop():
            raise Stopped(_STOPPED)
        nats += _batch_nats(model, batch)
        done(len(batch))
    return nats


def _batches(examples: Sequence[Example], max_tokens: int) -> Iterator[list[Example]]:
    """Rows of like length; at most `max_tokens` a batch, pads included, unless one row alone has more."""
    batch: list[Example] = []
    for example in sorted(examples, key=lambda each: each.num_tokens):
        if batch and example.num_tokens * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


def _batch_nats(model: Model, batch: Sequence[Example]) -> float:
    width = max(example.num_tokens for example in batch)
    ids = torch.full((len(batch), width), model.pad_id)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    targets = torch.full((len(batch), width), NO_LOSS)
    for row, example in enumerate(batch):
        start, end = len(example.prompt_ids), example.num_tokens
        ids[row, :end] = torch.tensor(example.prompt_ids + example.completion_ids)
        mask[row, :end] = 1
        # Each place tells the next token.
        targets[row, start - 1 : end - 1] = torch.tensor(example.completion_ids)
    targets = targets.to(model.device)
    with torch.inference_mode():
        logits = model.module(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).logits
        learnt = targets != NO_LOSS
        # In bfloat16 a log-softmax keeps two digits.
        return float(cross_entropy(logits[learnt].float(), targets[learnt], reduction="sum"))


def _generate(engine: Generator, examples: Sequence[Example], done: Callable[[int], object]) -> list[Completion]:
    """The completion of each example, in order; the engine is closed when this returns."""
    requests = [Request(at.to_bytes(16, "big"), example.prompt_ids) for at, example in enumerate(examples)]
    completions: dict[bytes, Completion] = {}
    try:
        for completion in engine.generate(requests):
            completions[completion.key] = completion
            done(1)
    except Stopped:
        raise Stopped(_STOPPED) from None
    finally:
        engine.close()
    return [completions[request.key] for request in requests]
