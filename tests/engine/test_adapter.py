import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from enrich.engine.adapter import WEIGHTS, Adapter, read_adapter
from enrich.engine.bases import Base
from enrich.errors import ModelUnavailable, SettingsError

from .conftest import MakeAdapter, edit_json

TRAINING = {
    "template": "{title}",
    "template_id": "t1",
    "base": {"preset": "tiny", "digest": "b1"},
    "loss": 1.5,
}


@pytest.fixture
def folder(make_adapter: MakeAdapter) -> Path:
    made = make_adapter()
    (made / "enrich.json").write_text(json.dumps(TRAINING))
    return made


def base(name: str = "tiny", digest: str = "b1") -> Base:
    return Base(name, Path("tiny"), digest)


def test_what_peft_saves_is_read(folder: Path) -> None:
    adapter = read_adapter(folder)
    assert adapter.peft["r"] == 4
    assert adapter.peft["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert (adapter.template, adapter.template_id) == ("{title}", "t1")
    assert (adapter.base_name, adapter.base_digest) == ("tiny", "b1")


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("adapter_config.json", {"r": 8}),
        ("adapter_config.json", {"lora_alpha": 9}),
        ("adapter_config.json", {"use_rslora": True}),
        ("adapter_config.json", {"target_modules": ["q_proj"]}),
        ("enrich.json", {"template_id": "t2"}),
    ],
)
def test_what_decides_a_text_is_in_the_digest(folder: Path, file: str, fields: dict[str, Any]) -> None:
    before = read_adapter(folder).digest
    edit_json(folder / file, **fields)
    assert read_adapter(folder).digest != before


def test_the_weights_are_in_the_digest(folder: Path) -> None:
    before = read_adapter(folder).digest
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    assert read_adapter(folder).digest != before


def test_what_decides_no_text_is_not_in_the_digest(folder: Path) -> None:
    before = read_adapter(folder).digest
    (folder / "README.md").write_text("other")
    edit_json(folder / "enrich.json", loss=0.1)
    edit_json(folder / "adapter_config.json", target_modules=["v_proj", "q_proj", "down_proj"], revision="x")
    assert read_adapter(folder).digest == before


def test_paths_and_modules_in_the_configuration_are_dropped(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    sys.path.insert(0, str(tmp_path))
    try:
        edit_json(
            folder / "adapter_config.json",
            base_model_name_or_path="/evil",
            auto_mapping={"parent_library": "canary", "base_model_class": "X"},
            megatron_core="canary",
            megatron_config={"x": 1},
        )
        adapter = read_adapter(folder)
    finally:
        sys.path.remove(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    assert not {"base_model_name_or_path", "auto_mapping", "megatron_core", "megatron_config"} & adapter.peft.keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"brand_new_feature": 1},
        {"trainable_token_indices": [1]},
        {"layer_replication": [[0, 1]]},
        {"use_qalora": True},
        {"peft_type": "IA3"},
        {"task_type": "SEQ_CLS"},
        {"init_lora_weights": "pissa"},
        {"r": 0},
        {"r": True},
        {"r": "8"},
        {"target_modules": None},
        {"rank_pattern": []},
    ],
)
def test_anything_but_a_plain_lora_is_refused(folder: Path, fields: dict[str, Any]) -> None:
    edit_json(folder / "adapter_config.json", **fields)
    with pytest.raises(ModelUnavailable, match=next(iter(fields))):
        read_adapter(folder)


@pytest.mark.parametrize("value", [None, False, {}, []])
def test_an_unknown_feature_that_is_off_is_no_matter(folder: Path, value: object) -> None:
    edit_json(folder / "adapter_config.json", brand_new_feature=value)
    assert read_adapter(folder).peft["r"] == 4


def test_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ModelUnavailable, match="pickle"):
        read_adapter(folder)


def test_code_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "x.py").write_text("")
    with pytest.raises(ModelUnavailable, match="Python files"):
        read_adapter(folder)


@pytest.mark.parametrize("file", ["adapter_config.json", "enrich.json"])
@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_file_is_one_line(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ModelUnavailable, match=file) as caught:
        read_adapter(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", ["adapter_config.json", WEIGHTS])
def test_a_missing_file_is_named(folder: Path, gone: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(ModelUnavailable, match=gone):
        read_adapter(folder)


def test_an_absent_folder_is_named(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(ModelUnavailable, match="no such adapter folder"):
        read_adapter(folder)


def test_half_a_training_record_is_refused(folder: Path) -> None:
    edit_json(folder / "enrich.json", base={"preset": "tiny"})
    with pytest.raises(ModelUnavailable, match=r"base\.digest"):
        read_adapter(folder)


def test_it_runs_with_what_it_was_trained_with(folder: Path) -> None:
    adapter = read_adapter(folder)
    adapter.check(base(), "t1", explicit=False)
    adapter.check(base(name="a copy under another name"), "t1", explicit=True)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(
    ("other", "template_id", "named"),
    [(base("big", "b2"), "t1", ("tiny", "b1", "big", "b2")), (base(), "t2", ("t1", "t2"))],
)
def test_another_base_or_template_is_refused_naming_both(
    folder: Path, other: Base, template_id: str, named: tuple[str, ...], explicit: bool
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_adapter(folder).check(other, template_id, explicit)
    assert all(name in str(caught.value) for name in named)


def test_a_foreign_adapter_runs_only_when_the_operator_says_with_what(folder: Path) -> None:
    (folder / "enrich.json").unlink()
    adapter = read_adapter(folder)
    assert isinstance(adapter, Adapter)
    adapter.check(base(), "t1", explicit=True)
    with pytest.raises(SettingsError, match="--base and a template"):
        adapter.check(base(), "t1", explicit=False)
