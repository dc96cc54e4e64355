"""What training learns from and what it leaves behind: on a tiny model, whose whole training takes a second."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from torch.nn.functional import cross_entropy
from trl import pack_dataset

from enrich.engine.adapter import NF4, read_adapter
from enrich.engine.bases import Base, find_base
from enrich.engine.model import load_model, load_trainable
from enrich.errors import CatalogueError, IOFailure, ModelUnavailable, Stopped, UsageError
from enrich.products import Product
from enrich.prompt import ModelTokenizer, PromptWriter, Template
from enrich.settings import Settings, load_settings
from tests.engine.conftest import build_adapter, build_tiny
from tests.runs import ROOT
from train import finetune
from train.pairs import Pair, rows_of
from train.settings import MIN_FREE_BYTES, PRESETS, Preset, choose_preset
from train.training import callbacks, export, lora
from train.training.lora import use_lean_products
from train.training.packed import Collator, use_packed_attention
from train.training.trainer import PackedTrainer

TEMPLATE = "<s> w3 {title} w4 {description} </s>"
TINY = Preset("tiny", "tiny", "none", "float32", 4, 5e-2, 4, 64, 2, 1, False, False)


def pair(number: int) -> Pair:
    """Learnable: the description says the title's words, backwards."""
    words = [f"w{10 + (number * step) % 80}" for step in (1, 3, 7)]
    return Pair(Product(" ".join(words)), " ".join([*reversed(words), "w9", "w8"]))


def write_pairs(folder: Path, num_train: int = 48, num_validation: int = 8) -> Path:
    folder.mkdir(parents=True)
    pairs = [pair(number) for number in range(num_train + num_validation)]
    for split, chosen in (("train", pairs[:num_train]), ("validation", pairs[num_train:]), ("test", [])):
        pq.write_table(pa.Table.from_batches([rows_of(chosen)]), folder / f"{split}.parquet")
    record = {
        "digest": f"{num_train}-{num_validation}",
        "inputs": [{"name": "shop.jsonl", "rows": 1234, "digest": "x"}],
        "license": "CC0",
        "seed": 0,
        "options": {"validation_share": 0.1, "test_share": 0.1},
    }
    (folder / "prepare.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return find_base(str(build_tiny(tmp_path_factory.mktemp("tiny") / "tiny-llama")), Path("nowhere"))


@pytest.fixture(scope="module")
def settings(base: Base) -> Settings:
    text = {"template": TEMPLATE, "max_prompt_tokens": 24}
    return load_settings(None, {"text": text, "model": {"base": str(base.folder)}, "machine": {"device": "cpu"}})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="module")
def trained(data: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed training."""
    out = tmp_path_factory.mktemp("adapters") / "shop"
    finetune.finetune(data, out, settings, TINY)
    return out


def history(adapter: Path, key: str) -> list[float]:
    log = json.loads((adapter / "training.json").read_text())["log"]
    return [each[key] for each in log if key in each]


# --- what is learnt --------------------------------------------------------------------------------------------------


def test_ids_are_those_of_generation_and_only_the_completion_counts(base: Base) -> None:
    writer = PromptWriter(Template.parse(TEMPLATE), ModelTokenizer.load(base.folder), 24)
    pairs = [pair(number) for number in range(5)]
    columns = finetune.tokenised(pa.Table.from_batches([rows_of(pairs)]), writer, 64)
    for each, ids, labels in zip(pairs, columns["input_ids"], columns["labels"], strict=True):
        (prompt,) = writer.write([each.product])
        completion = writer.completion_ids(each.description)
        assert completion is not None
        assert tuple(ids) == (*prompt.ids, *completion)
        assert labels == [-100] * len(prompt.ids) + completion
        assert labels[-1] == writer.tokenizer.eos_id


def test_what_does_not_fit_is_left_out_and_never_cut(base: Base) -> None:
    writer = PromptWriter(Template.parse(TEMPLATE), ModelTokenizer.load(base.folder), 24)
    pairs = [pair(1), Pair(pair(2).product, "w5 " * 60), Pair(pair(3).product, "w5 </s>"), pair(4)]
    columns = finetune.tokenised(pa.Table.from_batches([rows_of(pairs)]), writer, 64)
    assert len(columns["input_ids"]) == 2
    assert all(ids[-1] == writer.tokenizer.eos_id for ids in columns["input_ids"])


def packed_row(row_tokens: int | None, num_examples: int = 6) -> tuple[list[dict[str, list[int]]], Any]:
    """Examples of 4 to 14 tokens, the first 3 of which are not learnt, and the row that two sequences of them make."""
    examples = []
    for number in range(num_examples):
        ids = [1, *range(10 + number, 13 + 3 * number)]
        examples.append({"input_ids": ids, "labels": [-100] * 3 + ids[3:]})
    sequences = pack_dataset(Dataset.from_list(examples), 40, "bfd").with_format("numpy")
    assert len(sequences) == 2
    return examples, Collator(40, row_tokens)(list(sequences))


def trainable(base: Base, seed: int) -> Any:
    """`base` with an adapter that does something."""
    module = load_trainable(base, dtype=torch.float32, quantize="none", device=torch.device("cpu"))
    wrapped = get_peft_model(module, finetune._lora(TINY))
    torch.manual_seed(seed)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return wrapped


# peft asks transformers by an older name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("row_tokens", [None, 80, 200])
def test_a_row_has_the_loss_and_the_gradients_of_its_examples_alone(base: Base, row_tokens: int | None) -> None:
    """transformers and peft as they come, an example at a time, against attention, products and loss of ours."""
    examples, row = packed_row(row_tokens)
    alone, packed = trainable(base, seed=1), trainable(base, seed=1)
    num_learnt = sum(label != -100 for each in examples for label in each["labels"])
    for each in examples:
        logits = alone(input_ids=torch.tensor([each["input_ids"]]), use_cache=False).logits[0]
        loss = cross_entropy(logits[:-1], torch.tensor(each["labels"][1:]), reduction="sum")
        (loss / num_learnt).backward()

    use_packed_attention(packed.get_base_model())
    use_lean_products(packed)
    trainer: Any = SimpleNamespace(_longest=40, _compiled=False)
    loss = PackedTrainer.compute_loss(trainer, packed, row)
    loss.backward()
    for (name, one), other in zip(alone.named_parameters(), packed.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-6, msg=name)
    with torch.no_grad():
        assert float(PackedTrainer.compute_loss(trainer, packed, row)) == pytest.approx(float(loss))
        # The control: were they one example, they would see each other.
        blended = row | {"ends": row["ends"][[0, -1]]}
        assert float(PackedTrainer.compute_loss(trainer, packed, blended)) != pytest.approx(float(loss), rel=1e-3)


def test_of_a_row_the_completions_are_learnt_and_no_pad() -> None:
    examples, row = packed_row(128)
    assert row["input_ids"].shape == row["labels"].shape == row["position_ids"].shape == (1, 128)
    assert sorted(row["targets"].tolist()) == sorted(i for each in examples for i in each["labels"] if i != -100)
    assert torch.equal(row["input_ids"][0, row["predicting"] + 1], row["targets"])
    lengths = row["ends"].diff().tolist()
    num_pads = 128 - sum(len(each["input_ids"]) for each in examples)
    assert sum(lengths[len(examples) :]) == num_pads
    assert max(lengths) <= 40
    starts = row["ends"][:-1].long()
    assert (row["position_ids"][0, starts] == 0).all()
    assert int(row["labels"].ne(-100).sum()) == len(row["targets"])


def test_over_packed_weights_a_product_is_that_of_the_unpacked() -> None:
    import bitsandbytes.functional as packing

    torch.manual_seed(0)
    x, weight = torch.randn(5, 64, requires_grad=True), torch.randn(128, 64)
    down, up = torch.randn(4, 64, requires_grad=True), torch.randn(128, 4, requires_grad=True)
    packed, state = packing.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    layer = torch.nn.Module()
    layer.get_base_layer = lambda: SimpleNamespace(weight=SimpleNamespace(quant_state=state))  # type: ignore[assignment]
    how = lora._unpacked_once(layer)
    ours = lora._Product.apply(x, packed, layer.scales, how, down, up, 2.0)  # type: ignore[no-untyped-call]
    plain = x @ packing.dequantize_4bit(packed, state).t() + 2.0 * x @ down.t() @ up.t()
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    slope = torch.randn_like(plain)
    for one, other in zip(
        torch.autograd.grad(ours, (x, down, up), slope), torch.autograd.grad(plain, (x, down, up), slope), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_the_clock_times_steps_and_not_what_is_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now)
    waits: list[float] = []
    clock = callbacks.Clock(1000, lambda: waits.append(now))
    for step in range(1, 11):
        control = SimpleNamespace(should_evaluate=step == 6, should_save=step == 6, should_training_stop=step == 10)
        clock.on_step_begin(None, SimpleNamespace(epoch=(step - 1) / 10), control)
        now += 50.0 if step == 1 else 2.0
        clock.on_step_end(None, SimpleNamespace(epoch=step / 10), control)
        now += 30.0 if step == 6 else 0.0
    assert (clock.first_step_seconds, clock.seconds, clock.tokens) == (50.0, 68.0, 1000)
    assert clock.tokens_per_second == 50.0
    # The card is waited for where the training waits: behind the first step, the evaluation and the last.
    assert len(waits) == 3


def test_no_token_that_ends_a_text_is_a_pad(base: Base) -> None:
    for eos_id in (0, 2):
        tokenizer = finetune._tokenizer(base, eos_id)
        assert tokenizer.eos_token_id == eos_id
        assert tokenizer.pad_token_id != eos_id


# --- what is left behind ---------------------------------------------------------------------------------------------


def test_an_adapter_that_enrich_takes_and_that_has_learnt(trained: Path, base: Base, settings: Settings) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "enrich.json",
        "loss.png",
        "training.json",
    ]
    assert list(trained.parent.iterdir()) == [trained]
    adapter = read_adapter(trained)
    adapter.check(base, Template.parse(settings.text.template).id, explicit=False)
    assert adapter.quantization is None
    load_model(base, adapter, device="cpu")
    losses = history(trained, "eval_loss")
    assert min(losses) < 0.7 * losses[0]


def test_the_record_holds_what_comparisons_need_and_no_path(trained: Path, base: Base, data: Path) -> None:
    record = json.loads((trained / "enrich.json").read_text())
    assert record["split"] == {"seed": 0, "validation_share": 0.1, "test_share": 0.1}
    assert record["data_digest"] == "48-8"
    assert record["base"] == {"preset": base.name, "digest": base.digest}
    card = (trained / "README.md").read_text()
    assert "shop.jsonl" in card
    assert "CC0" in card
    texts = [path.read_text() for path in trained.iterdir() if path.suffix in (".md", ".json")]
    assert not any(
        str(folder) in text for folder in (base.folder.parent, data.parent, trained.parent) for text in texts
    )


def test_the_best_checkpoint_is_the_one_that_is_kept(settings: Settings, tmp_path: Path) -> None:
    """Few pairs learnt by heart: the last step is not the best for others."""
    data = write_pairs(tmp_path / "data", num_train=6)
    finetune.finetune(data, tmp_path / "by-heart", settings, replace(TINY, epochs=40))
    training = json.loads((tmp_path / "by-heart" / "training.json").read_text())
    losses = {each["step"]: each["eval_loss"] for each in training["log"] if "eval_loss" in each}
    assert training["best_step"] == min(losses, key=losses.__getitem__)
    assert training["validation_loss"] == min(losses.values())
    assert training["best_step"] < training["steps"]


def test_without_validation_pairs_the_last_step_is_kept(settings: Settings, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", num_train=20, num_validation=0)
    made = finetune.finetune(data, tmp_path / "out", settings, replace(TINY, epochs=1))
    assert made.validation_loss is None
    assert read_adapter(tmp_path / "out")


# --- interrupted -----------------------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from enrich.settings import load_settings
from train import finetune
from train.training import callbacks
from tests.train.test_finetune import TEMPLATE, TINY
data, out, base, step = sys.argv[1:]
def on_step_end(self, args, state, control, **_):
    if state.global_step == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
callbacks.StopWhen.on_step_end = on_step_end
text = {"template": TEMPLATE, "max_prompt_tokens": 24}
settings = load_settings(None, {"text": text, "model": {"base": base}, "machine": {"device": "cpu"}})
finetune.finetune(Path(data), Path(out), settings, TINY)
"""


def test_killed_in_the_middle_it_goes_on_with_the_same_losses(
    data: Path, base: Base, settings: Settings, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shop"
    command = [sys.executable, "-c", _KILLED, str(data), str(out), str(base.folder), "9"]
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not out.exists()
    work = tmp_path / ".shop.training"
    assert max(int(path.name.split("-")[1]) for path in (work / "checkpoints").glob("checkpoint-*")) < 9
    # A checkpoint that the kill cut short.
    (work / "checkpoints" / "checkpoint-9").mkdir()
    finetune.finetune(data, out, settings, TINY)
    for key in ("loss", "eval_loss", "learning_rate"):
        assert history(out, key) == pytest.approx(history(trained, key), rel=1e-5)
    assert read_adapter(out).digest == read_adapter(trained).digest
    assert list(tmp_path.iterdir()) == [out]


def test_a_polite_stop_loses_nothing(data: Path, settings: Settings, trained: Path, tmp_path: Path) -> None:
    asked = iter([False] * 5)
    with pytest.raises(Stopped, match="run again"):
        finetune.finetune(data, tmp_path / "shop", settings, TINY, lambda: next(asked, True))
    assert not (tmp_path / "shop").exists()
    finetune.finetune(data, tmp_path / "shop", settings, TINY)
    assert history(tmp_path / "shop", "loss") == pytest.approx(history(trained, "loss"), rel=1e-5)


def test_other_data_or_settings_start_anew(data: Path, settings: Settings, tmp_path: Path) -> None:
    asked = iter([False] * 5)
    with pytest.raises(Stopped):
        finetune.finetune(data, tmp_path / "shop", settings, TINY, lambda: next(asked, True))
    finetune.finetune(data, tmp_path / "shop", settings, replace(TINY, epochs=1))
    assert json.loads((tmp_path / "shop" / "training.json").read_text())["epochs"] == 1


def test_what_was_made_is_not_made_again_nor_overwritten(
    trained: Path, data: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "load_trainable", lambda *_, **__: pytest.fail("trained again"))
    assert finetune.finetune(data, trained, settings, TINY).was_there
    with pytest.raises(UsageError, match="name another --out"):
        finetune.finetune(data, trained, settings, replace(TINY, rank=8))


@pytest.mark.parametrize("module", ["safetensors.torch.save_file", "train.finetune.write_adapter", "torch.save"])
def test_a_full_disk_is_one_line_and_leaves_no_adapter(
    module: str, data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as fault:
        fault.setattr(module, full)
        with pytest.raises(IOFailure, match="No space left") as failure:
            finetune.finetune(data, tmp_path / "shop", settings, TINY)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "shop").exists()
    finetune.finetune(data, tmp_path / "shop", settings, replace(TINY, epochs=1))


def test_nothing_that_can_be_learnt_is_one_line(settings: Settings, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", num_train=0, num_validation=0)
    with pytest.raises(CatalogueError, match="no pair to learn from"):
        finetune.finetune(data, tmp_path / "out", settings, TINY)
    assert not (tmp_path / "out").exists()


# --- presets ---------------------------------------------------------------------------------------------------------


def test_auto_goes_by_the_card() -> None:
    assert choose_preset("auto", None).name == "smollm2-cpu"
    assert choose_preset("auto", MIN_FREE_BYTES).name == "tinyllama-lora"
    assert choose_preset("auto", MIN_FREE_BYTES - 1).name == "tinyllama-qlora"
    with pytest.raises(UsageError, match="no such preset"):
        choose_preset("llama", None)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rank": 4096}, {"epochs": 0.0}, {"learning_rate": 2}])
def test_what_cannot_be_trained_with_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TINY.overridden(**({"rank": None, "epochs": None, "learning_rate": None} | wrong))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
@pytest.mark.parametrize("name", ["tinyllama-qlora", "tinyllama-lora"])
def test_without_a_card_a_preset_for_cards_says_what_to_take(
    name: str, data: Path, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="take smollm2-cpu") as refusal:
        finetune.finetune(data, tmp_path / "out", settings, PRESETS[name])
    assert refusal.value.status == 69
    assert list(tmp_path.iterdir()) == []


# --- over four bits --------------------------------------------------------------------------------------------------


def test_an_adapter_over_four_bits_is_merged_into_what_it_was_trained_over(base: Base, tmp_path: Path) -> None:
    import bitsandbytes.functional as packing

    folder = build_adapter(tmp_path / "adapter", base.folder)
    over_plain = read_adapter(folder)
    plain = load_model(base, over_plain, device="cpu").module
    record = {"base": {"preset": base.name, "digest": base.digest}, "template": "t", "template_id": "i"}
    (folder / "enrich.json").write_text(json.dumps(record | {"quantization": NF4}))
    over_four_bits = read_adapter(folder)
    assert over_four_bits.digest != over_plain.digest
    merged = load_model(base, over_four_bits, device="cpu").module
    original = load_trainable(base, dtype=torch.float32, quantize="none", device=torch.device("cpu"))
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.gate_proj"):
        weight = original.get_submodule(name).weight.data
        packed, state = packing.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        rounded = packing.dequantize_4bit(packed, state)
        learnt = plain.get_submodule(name).weight.data - weight
        torch.testing.assert_close(merged.get_submodule(name).weight.data, rounded + learnt, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(rounded, weight, atol=1e-3)
    assert torch.equal(merged.lm_head.weight, original.lm_head.weight)


def test_a_qlora_says_over_what_it_was_trained() -> None:
    record = {"seed": 0, "options": {"validation_share": 0.1, "test_share": 0.1}, "digest": "d"}
    training = {
        "request": {
            "base": {"preset": "tinyllama", "digest": "b"},
            "template": "t",
            "template_id": "i",
            "max_prompt_tokens": 192,
            "preset": {"quantize": "4bit", "sequence_tokens": 512},
        },
        "validation_loss": 1.0,
    }
    assert export._promises(record, training)["quantization"] == NF4
