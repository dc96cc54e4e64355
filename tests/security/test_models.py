"""A model folder is data: no pickle is opened, no code is run or fetched, and what decides a text is digested."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from enrich.engine.adapter import read_adapter
from enrich.engine.bases import Base, find_base
from enrich.engine.model import load_model
from enrich.errors import ModelUnavailable, SettingsError
from enrich.products import Product
from enrich.recipe import Recipe
from enrich.settings import TextSettings

from ..engine.conftest import _one_thread as _one_thread
from ..engine.conftest import edit_json, record_training
from .besieged import ASKING, Siege
from .canary import Canary
from .headers import malformed
from .tiny import logits
from .tiny import models as models


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """The first of the two, to be spoilt."""
    return Path(shutil.copytree(models / "one", tmp_path / "model"))


def base_of(folder: Path) -> Base:
    return find_base(str(folder), Path("nowhere"))


def unchecked(folder: Path) -> Base:
    """As if nothing had looked at the folder: the loading itself must hold, too."""
    return Base("model", folder, "unchecked")


def refusal(folder: Path) -> str:
    """The one line in which it is refused, by whichever looks at it first."""
    with pytest.raises(ModelUnavailable) as caught:
        load_model(base_of(folder), device="cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- pickles -------------------------------------------------------------------------------------------------------

PICKLES = ("pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt", "data.pkl", "training_args.bin", "optimizer.pt")


def write_pickles(folder: Path, canary: Canary) -> None:
    """Of both kinds: the plain one, and torch's own archive of one."""
    for name in PICKLES:
        (folder / name).write_bytes(canary.as_pickle())
    torch.save({"model.norm.weight": canary.as_object()}, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index(load_names(folder), "pytorch_model.bin")))


def load_names(folder: Path) -> list[str]:
    return list(load_file(folder / "model.safetensors"))


def index(names: list[str], file: str) -> dict[str, Any]:
    return {"metadata": {}, "weight_map": dict.fromkeys(names, file)}


def test_pickles_beside_the_weights_are_never_opened(folder: Path, canary: Canary) -> None:
    expected = logits(base_of(folder))
    write_pickles(folder, canary)
    assert torch.equal(logits(base_of(folder)), expected)
    assert not canary.sang


def test_pickles_in_place_of_the_weights_are_never_opened(folder: Path, canary: Canary) -> None:
    write_pickles(folder, canary)
    (folder / "model.safetensors").unlink()
    assert "pickles" in refusal(folder)
    with pytest.raises(ModelUnavailable):
        load_model(unchecked(folder), device="cpu")
    assert not canary.sang


def test_an_index_that_leads_to_a_pickle_runs_nothing(folder: Path, canary: Canary) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index(load_names(folder), "pytorch_model.bin")))
    write_pickles(folder, canary)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    refusal(folder)
    assert not canary.sang


def test_the_canary_would_sing(folder: Path, canary: Canary) -> None:
    write_pickles(folder, canary)
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert canary.sang


# --- every byte that decides a text --------------------------------------------------------------------------------


def swap_two_words(tokenizer: Path) -> None:
    parsed = json.loads(tokenizer.read_text())
    words = parsed["model"]["vocab"]
    words["w40"], words["w41"] = words["w41"], words["w40"]
    tokenizer.write_text(json.dumps(parsed))


def test_two_swapped_ids_are_another_model_whatever_the_weights_say(folder: Path, models: Path, tmp_path: Path) -> None:
    before = base_of(folder)
    adapter = Path(shutil.copytree(models / "adapter", tmp_path / "adapter"))
    trained = read_adapter(record_training(adapter, before, "{title}"))
    trained.check(before, str(trained.template_id), explicit=False)
    swap_two_words(folder / "tokenizer.json")
    after = base_of(folder)
    assert (folder / "model.safetensors").read_bytes() == (models / "one" / "model.safetensors").read_bytes()
    assert after.digest != before.digest
    keys = {Recipe("t", base.digest, None, TextSettings()).key(Product("Mug")) for base in (before, after)}
    assert len(keys) == 2, "no text of the one is ever taken for a text of the other"
    with pytest.raises(SettingsError, match="trained on"):
        trained.check(after, str(trained.template_id), explicit=False)


def lead_outside(folder: Path, other: Path) -> Path:
    """An index to weights in the folder's parent."""
    weights = Path(shutil.copy(other / "model.safetensors", folder.with_name("outside.safetensors")))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index(load_names(folder), f"../{weights.name}")))
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    return weights


def lead_below(folder: Path, other: Path) -> Path:
    """An index to weights in a folder of the folder."""
    (folder / "deep").mkdir()
    weights = Path(shutil.copy(other / "model.safetensors", folder / "deep" / "w.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index(load_names(folder), "deep/w.safetensors")))
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    return weights


def name_other_weights(folder: Path, other: Path) -> Path:
    """A key of config.json that names the weights."""
    (folder / "deep").mkdir()
    edit_json(folder / "config.json", transformers_weights="deep/w.safetensors")
    return Path(shutil.copy(other / "model.safetensors", folder / "deep" / "w.safetensors"))


def lead_to_tensors_in_a_pickle(folder: Path, other: Path) -> Path:
    """An index to weights that are no safetensors."""
    torch.save(load_file(other / "model.safetensors"), folder / "w.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index(load_names(folder), "w.bin")))
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    return folder / "w.bin"


@pytest.mark.parametrize("lead", [lead_outside, lead_below, name_other_weights, lead_to_tensors_in_a_pickle])
def test_weights_that_are_loaded_are_weights_that_were_digested(folder: Path, models: Path, lead: Any) -> None:
    weights = lead(folder, models / "other")
    try:
        before, said = base_of(folder).digest, logits(base_of(folder))
    except ModelUnavailable:
        return
    if weights.suffix == ".bin":
        pytest.fail("a pickle was loaded")
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert torch.equal(logits(base_of(folder)), said) or base_of(folder).digest != before


def test_an_adapter_inside_a_base_changes_no_text_unseen(folder: Path, models: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(models / "adapter" / name, folder)
    try:
        before, said = base_of(folder).digest, logits(base_of(folder))
    except ModelUnavailable:
        return
    edit_json(folder / "adapter_config.json", lora_alpha=800)
    assert torch.equal(logits(base_of(folder)), said) or base_of(folder).digest != before


def test_an_adapter_inside_a_base_names_no_other_base_and_no_module(
    folder: Path, models: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(models / "adapter" / name, folder)
    (canary.folder.parent / "bait.py").write_text(canary.as_code())
    monkeypatch.syspath_prepend(canary.folder.parent)
    asking = {"auto_mapping": {"parent_library": "bait", "base_model_class": "X"}, "megatron_core": "bait"}
    edit_json(folder / "adapter_config.json", base_model_name_or_path="/evil", megatron_config={"x": 1}, **asking)
    with pytest.raises(ModelUnavailable):
        load_model(base_of(folder), device="cpu")
    assert not canary.sang
    assert "bait" not in sys.modules


# --- headers and settings that lie ---------------------------------------------------------------------------------


def test_weights_whose_header_lies_are_one_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    names = []
    for what, content in malformed(weights.read_bytes()):
        spoilt = folder.with_name("spoilt") / what.replace(" ", "-").replace("*", "-")
        shutil.copytree(folder, spoilt)
        (spoilt / weights.name).write_bytes(content)
        assert "cannot be used" in refusal(spoilt), what
        names.append(what)
    assert len(names) > 15


@pytest.mark.parametrize("layers", [10**4, 10**9, 10**30])
def test_layers_that_the_weights_do_not_have_are_never_made(folder: Path, layers: int) -> None:
    edit_json(folder / "config.json", num_hidden_layers=layers)
    assert f"{layers} layers, and " in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b'{"max_length": 1, "eos_token_id": 3, "bad_words_ids": "x", "do_sample": true, "temperature": -1}',
        b'{"compile_config": {"backend": "evil"}, "assistant_model": "evil/x"}',
        b'{"cache_implementation": "evil"}',
        b"[]",
    ],
)
def test_generation_settings_of_any_kind_decide_nothing(folder: Path, models: Path, content: bytes) -> None:
    """A model beside which they lie runs with ours, or not at all."""
    expected = logits(base_of(models / "one"))
    (folder / "generation_config.json").write_bytes(content)
    try:
        model = load_model(base_of(folder), device="cpu")
    except ModelUnavailable:
        return
    assert model.module.generation_config == GenerationConfig()
    assert torch.equal(logits(base_of(folder)), expected)


# --- code ----------------------------------------------------------------------------------------------------------


def test_a_folder_that_asks_for_code_gets_none(siege: Siege) -> None:
    assert siege.told["loaded"]["as_we_do"].keys() == {*ASKING, "names"}
    assert not siege.ran("as_we_do") - {"attn_renamed"}
    for name in ("attn_internal", "attn_private", "auto_map", "auto_map_unknown"):
        assert "refused" in siege.outcome("as_we_do", name)
    assert siege.outcome("as_we_do", "attn_public") == "loaded", "with ours, whatever the folder prefers"


def test_no_other_name_of_a_forbidden_key_gets_code(siege: Siege) -> None:
    assert "attn_renamed" not in siege.ran("as_we_do")


def test_the_loading_itself_runs_no_code_of_the_folder(siege: Siege) -> None:
    """With the checks left out: a later version of the libraries may know files and keys that they do not."""
    assert not siege.ran("without_checks") & {"auto_map", "auto_map_unknown", "attn_public", "attn_internal"}
    assert "cannot be used" in siege.outcome("without_checks", "auto_map_unknown")


def test_loading_without_care_would_run_it(siege: Siege) -> None:
    assert siege.ran("carelessly") >= {"auto_map", "auto_map_unknown"}
    # Which of the keys get a kernel is another matter in every version; today, one does even when we load it.
    kernels = {name for name, fields in ASKING.items() if "auto_map" not in fields}
    assert (siege.ran("carelessly") | siege.ran("without_checks")) & kernels


def test_names_of_tensors_can_neither_forge_a_line_nor_steer_a_terminal(siege: Siege) -> None:
    assert "unexpected keys" in siege.outcome("as_we_do", "names")
    said = siege.said("as_we_do", "names").split("\n")
    assert all(line.isprintable() for line in said)
    assert not any(line.startswith("enrich: ") for line in said)
