"""`make bench-gpu`: the slot grid on a CUDA card, beside plain padded `generate`.

Prints one JSON line a figure. The model has the shape of TinyLlama-1.1B and random weights; prompts have 24 tokens in
common and 6-40 of their own, and the completions' lengths are forced (median 90, 16-256), so that all engines do the
same work. Useful tokens are those of the completions; ramp and tail count, compiling and capturing do not.
"""

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from enrich.engine.grid import GridEngine
from enrich.engine.model import Model
from enrich.engine.protocol import Figures, Request
from enrich.engine.sampling import Sampling
from enrich.engine.tiers import Stored, Wish, open_engine
from tests.bench.tinyllama import VOCABULARY, config

_PREFIX, _OWN, _LENGTHS = 24, (6, 40), (16, 256)

Texts = dict[bytes, tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--only", default="grid,same,padded,profile,logits")
    options = parser.parse_args()
    model = tinyllama_shape()
    requests, lengths = workload(options.rows)
    for name in options.only.split(","):
        _BENCHES[name](model, requests, lengths, options)


def tinyllama_shape(dtype: torch.dtype = torch.bfloat16) -> Model:
    torch.manual_seed(0)
    device = torch.device("cuda")
    with device:
        module = AutoModelForCausalLM.from_config(config(), dtype=dtype).eval().requires_grad_(False)
    module.generation_config.eos_token_id = None
    module.generation_config.pad_token_id = 0
    return Model(module, device, dtype, (), 0, VOCABULARY, 2048)


def workload(count: int) -> tuple[list[Request], dict[bytes, int]]:
    """Requests, and the length of each one's completion."""
    dice = np.random.default_rng(0)
    prefix = dice.integers(3, VOCABULARY, _PREFIX).tolist()
    own = dice.integers(_OWN[0], _OWN[1] + 1, count)
    lengths = np.clip(np.exp(dice.normal(np.log(90), 0.5, count)), *_LENGTHS).astype(int)
    requests = [
        Request(at.to_bytes(16, "big"), (*prefix, *dice.integers(3, VOCABULARY, size).tolist()))
        for at, size in enumerate(own)
    ]
    return requests, {each.key: int(length) for each, length in zip(requests, lengths, strict=True)}


def open_grid(model: Model, prefix_ids: tuple[int, ...], slots: int | None = None) -> tuple[GridEngine, float]:
    """The grid, and the seconds until it was ready."""
    wish = Wish(prefix_ids, _PREFIX + _OWN[1], _LENGTHS[1], Sampling(), slots=slots)
    kept: dict[str, str] = {}
    started = time.perf_counter()
    engine = open_engine(model, wish, Stored(kept.get, kept.__setitem__), lambda: False, kind="grid")
    assert isinstance(engine, GridEngine)
    return engine, time.perf_counter() - started


def force(engine: GridEngine, lengths: dict[bytes, int]) -> GridEngine:
    engine._limit = lambda request: lengths[request.key]  # type: ignore[method-assign]
    return engine


def run(engine: GridEngine, requests: Iterable[Request]) -> tuple[Texts, float]:
    engine.figures, engine._started = Figures(), 0.0
    started = time.perf_counter()
    texts = {each.key: each.ids for each in engine.generate(requests)}
    return texts, time.perf_counter() - started


def tell(figure: str, **values: Any) -> None:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({"figure": figure, **rounded}), flush=True)


def tell_run(figure: str, engine: GridEngine, rows: int, seconds: float, **more: Any) -> None:
    found = engine.figures
    tell(
        figure,
        card=torch.cuda.get_device_name(),
        slots=engine._slots.shapes.slots,
        sizes=engine._slots.sizes,
        rows=rows,
        seconds=seconds,
        rows_per_s=rows / seconds,
        useful_tokens_per_s=found.tokens / seconds,
        slot_use=found.slot_use,
        padding_share=found.padding_share,
        decode_seconds=found.decode_seconds,
        prefill_seconds=found.prefill_seconds,
        peak_gb=torch.cuda.max_memory_allocated() / 2**30,
        **more,
    )


def _grid(model: Model, requests: Sequence[Request], lengths: dict[bytes, int], options: argparse.Namespace) -> None:
    engine, ready = open_grid(model, requests[0].prompt_ids[:_PREFIX], options.slots)
    force(engine, lengths)
    texts, seconds = run(engine, requests)
    assert {key: len(ids) for key, ids in texts.items()} == {each.key: lengths[each.key] for each in requests}
    tell_run("grid", engine, len(requests), seconds, ready_s=ready)
    engine._slots.release()


def _same(model: Model, requests: Sequence[Request], lengths: dict[bytes, int], options: argparse.Namespace) -> None:
    """The texts of a run, of a shuffled one, of two halves, and of one that is broken off and gone on with."""
    engine, _ = open_grid(model, requests[0].prompt_ids[:_PREFIX], options.slots)
    force(engine, lengths)
    texts, _ = run(engine, requests)
    shuffled = [requests[at] for at in np.random.default_rng(1).permutation(len(requests))]
    half = len(requests) // 2 + 17
    halves = run(engine, requests[:half])[0] | run(engine, requests[half:])[0]
    broken: Texts = {}
    for each in engine.generate(requests):
        broken[each.key] = each.ids
        if len(broken) >= half:
            break
    resumed = broken | run(engine, [each for each in requests if each.key not in broken])[0]
    for name, other in (("shuffled", run(engine, shuffled)[0]), ("in two halves", halves), ("resumed", resumed)):
        same = sum(texts[key] == other[key] for key in texts)
        tell(f"rows identical, {name}", same=same, rows=len(texts))
    engine._slots.release()


def _padded(model: Model, requests: Sequence[Request], lengths: dict[bytes, int], options: argparse.Namespace) -> None:
    """Plain `generate` in arrival order, left-padded; a batch runs as long as its longest completion."""
    size = 1024
    some = requests[: 2 * size]
    for warm in (True, False):
        started, useful = time.perf_counter(), 0
        for at in range(0, size if warm else len(some), size):
            batch = some[at : at + size]
            width = max(len(each.prompt_ids) for each in batch)
            longest = max(lengths[each.key] for each in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, each in enumerate(batch):
                ids[row, width - len(each.prompt_ids) :] = torch.tensor(each.prompt_ids)
                mask[row, width - len(each.prompt_ids) :] = 1
            with torch.inference_mode():
                model.module.generate(
                    input_ids=ids.cuda(),
                    attention_mask=mask.cuda(),
                    max_new_tokens=longest,
                    min_new_tokens=longest,
                    do_sample=False,
                )
            useful += sum(lengths[each.key] for each in batch)
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    tell("padded generate", batch=size, rows=len(some), seconds=seconds, useful_tokens_per_s=useful / seconds)


def _profile(model: Model, requests: Sequence[Request], lengths: dict[bytes, int], options: argparse.Namespace) -> None:
    """One window of the full grid at 100 tokens a slot: kernels, milliseconds a step, and their share."""
    engine, _ = open_grid(model, requests[0].prompt_ids[:_PREFIX], options.slots)
    slots = engine._slots
    everything = np.arange(slots.shapes.slots)
    with torch.no_grad():
        slots._positions.fill_(100)
        slots._left.fill_(200)
        slots.decode(everything).wait()
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            told = slots.decode(everything)
            told.wait()
    steps = slots.shapes.window
    kernels = sorted(seen.key_averages(), key=lambda each: -each.device_time_total)
    total = sum(each.device_time_total for each in kernels) / steps / 1e3
    tell("decode step", ms=told.seconds() / steps * 1e3, ms_in_kernels=total)
    for each in kernels[:12]:
        ms = each.device_time_total / steps / 1e3
        tell("kernel", name=each.key[:70], ms=ms, share=ms / total, launches=each.count / steps)
    slots.release()


def _logits(model: Model, requests: Sequence[Request], _: dict[bytes, int], __: argparse.Namespace) -> None:
    """Relative L2 distance of bf16 and fp16 logits from float32, of the plain model."""
    exact = tinyllama_shape(torch.float32)
    ids = torch.tensor([each.prompt_ids[:30] for each in requests[:64]], device="cuda")
    with torch.inference_mode():
        expected = exact.module(input_ids=ids, use_cache=False).logits
        for dtype in (torch.bfloat16, torch.float16):
            exact.module.to(dtype)
            found = exact.module(input_ids=ids, use_cache=False).logits.float()
            tell("logits", dtype=str(dtype), relative_l2=((found - expected).norm() / expected.norm()).item())
            exact = tinyllama_shape(torch.float32)


_BENCHES = {"grid": _grid, "same": _same, "padded": _padded, "profile": _profile, "logits": _logits}


if __name__ == "__main__":
    main()
