"""An adapter folder is data, too, and says nothing about which base is loaded."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from enrich.engine.adapter import WEIGHTS, base_of, read_adapter
from enrich.engine.bases import EMBEDDED, Base, find_base
from enrich.engine.model import load_model
from enrich.errors import ModelUnavailable

from ..engine.conftest import _one_thread as _one_thread
from ..engine.conftest import edit_json
from .canary import Canary
from .headers import malformed
from .tiny import logits
from .tiny import models as models


@pytest.fixture(scope="module")
def base(models: Path) -> Base:
    return find_base(str(models / "one"), Path("nowhere"))


@pytest.fixture(scope="module")
def expected(models: Path, base: Base) -> torch.Tensor:
    """What the base says with the adapter as it was made."""
    return logits(base, models / "adapter")


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """The adapter, to be spoilt."""
    return Path(shutil.copytree(models / "adapter", tmp_path / "adapter"))


def refusal(base: Base, adapter: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load_model(base, read_adapter(adapter), device="cpu")
    assert str(adapter) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- sizes that lie --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [10**4, 10**9, 10**30])
def test_a_rank_that_no_tensor_has_is_never_made(base: Base, folder: Path, rank: int) -> None:
    edit_json(folder / "adapter_config.json", r=rank)
    assert "no tensor is as large" in refusal(base, folder)


@pytest.mark.parametrize("rank", [10**9, "many", None, 1.5])
def test_nor_one_that_a_pattern_names(base: Base, folder: Path, rank: object) -> None:
    edit_json(folder / "adapter_config.json", rank_pattern={"q_proj": rank})
    assert "no tensor is as large" in refusal(base, folder)


# --- which base ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evil", ["/evil", "evil/model", "other", "../other", "http://evil.example/model"])
def test_the_base_is_ours_whatever_the_adapter_names(
    base: Base, models: Path, folder: Path, expected: torch.Tensor, evil: str
) -> None:
    named = str(models / "other") if evil == "other" else evil
    edit_json(folder / "adapter_config.json", base_model_name_or_path=named, revision="evil")
    assert torch.equal(logits(base, folder), expected)


def test_another_base_would_be_noticed(models: Path, expected: torch.Tensor) -> None:
    other = find_base(str(models / "other"), Path("nowhere"))
    assert not torch.equal(logits(other, models / "adapter"), expected)


@pytest.mark.parametrize("named", ["/evil", "../evil", "evil/model", "smollm2-135m/../../evil", "${HOME}", ""])
def test_the_record_of_a_training_chooses_among_presets_alone(folder: Path, named: str) -> None:
    trained = {"template": "{title}", "template_id": "t", "base": {"preset": named, "digest": "d"}}
    (folder / "enrich.json").write_text(json.dumps(trained))
    if named:
        assert base_of(read_adapter(folder)) == EMBEDDED
    else:
        with pytest.raises(ModelUnavailable, match=r"base\.preset"):
            read_adapter(folder)


# --- code ----------------------------------------------------------------------------------------------------------

# Every field of peft's configurations that says what to import, to load or to call, and some that may come.
ASKING: list[dict[str, Any]] = [
    {"auto_mapping": {"parent_library": "bait", "base_model_class": "X"}},
    {"auto_mapping": {"parent_library": "bait"}, "task_type": None},
    {"megatron_core": "bait", "megatron_config": {"x": 1}},
    {"megatron_core": "megatron.bait", "megatron_config": {"x": 1}},
    {"loftq_config": {"module": "bait"}, "runtime_config": {"module": "bait"}},
    {"custom_modules": {"q_proj": "bait.X"}, "_custom_modules": {"q_proj": "bait.X"}},
    {"eva_config": {"module": "bait"}, "corda_config": {"module": "bait"}},
    {"arrow_config": {"module": "bait"}},
    {"auto_map": {"AutoModel": "bait.X"}},
    {"init_lora_weights": "bait"},
    {"target_parameters": ["bait"]},
]


@pytest.mark.parametrize("asking", ASKING, ids=lambda each: "+".join(each))
def test_no_field_imports_a_module(
    base: Base,
    folder: Path,
    expected: torch.Tensor,
    canary: Canary,
    monkeypatch: pytest.MonkeyPatch,
    asking: dict[str, Any],
) -> None:
    path = canary.folder.parent / "path"
    (path / "megatron").mkdir(parents=True)
    for file in ("bait.py", "megatron/__init__.py", "megatron/bait.py"):
        (path / file).write_text(canary.as_code())
    monkeypatch.syspath_prepend(path)
    edit_json(folder / "adapter_config.json", **asking)
    try:
        assert torch.equal(logits(base, folder), expected)
    except ModelUnavailable as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    assert not canary.sang
    assert not {"bait", "megatron"} & sys.modules.keys()


def test_pickles_beside_the_weights_are_never_opened(
    base: Base, folder: Path, expected: torch.Tensor, canary: Canary
) -> None:
    for name in ("adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(canary.as_pickle())
    torch.save({"x": canary.as_object()}, folder / "adapter_model.bin")
    assert torch.equal(logits(base, folder), expected)
    assert not canary.sang


@pytest.mark.parametrize("kind", ["plain", "archive"])
def test_a_pickle_in_place_of_the_weights_is_never_opened(base: Base, folder: Path, canary: Canary, kind: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(canary.as_pickle())
    if kind == "archive":
        torch.save({"x": canary.as_object()}, folder / "adapter_model.bin")
    assert "pickle" in refusal(base, folder)
    shutil.copy(folder / "adapter_model.bin", folder / WEIGHTS)
    assert "cannot be used" in refusal(base, folder)
    assert not canary.sang


# --- what does not fit ---------------------------------------------------------------------------------------------


def test_weights_whose_header_lies_are_one_line(base: Base, folder: Path) -> None:
    good, names = (folder / WEIGHTS).read_bytes(), []
    for what, content in malformed(good):
        (folder / WEIGHTS).write_bytes(content)
        assert "cannot be used" in refusal(base, folder), what
        names.append(what)
    assert len(names) > 15


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 10**12},
        {"r": 3},
        {"rank_pattern": {"q_proj": 10**12}},
        {"rank_pattern": {"q_proj": 2}},
        {"target_modules": ".*"},
        {"target_modules": "(.*a){25}x"},
        {"layers_to_transform": [10**9]},
        {"alpha_pattern": {"q_proj": "x"}},
        {"lora_alpha": float("nan")},
        {"lora_alpha": 10**400},
    ],
    ids=str,
)
def test_fields_that_do_not_fit_the_weights_are_one_line(base: Base, folder: Path, fields: dict[str, Any]) -> None:
    edit_json(folder / "adapter_config.json", **fields)
    refusal(base, folder)
