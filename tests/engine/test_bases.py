import json
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.engine import bases
from enrich.engine.bases import EMBEDDED, RECORD, Base, embedded_digest, find_base, write_record
from enrich.errors import ModelUnavailable

HOME = Path("nowhere")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files in the place of a model: nothing here loads weights."""
    made = tmp_path / "models" / EMBEDDED
    made.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (made / name).write_text("{}")
    (made / "model-1.safetensors").write_bytes(b"one")
    (made / "model-2.safetensors").write_bytes(b"two")
    return made


def digest(folder: Path) -> str:
    return find_base(str(folder), HOME).digest


def test_a_preset_lies_under_home(folder: Path, tmp_path: Path) -> None:
    assert find_base(EMBEDDED, tmp_path) == Base(EMBEDDED, folder, digest(folder))


def test_an_absent_preset_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="run `make model BASE=tinyllama`"):
        find_base("tinyllama", tmp_path)


def test_an_absent_folder_names_the_presets(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no such model folder.*smollm2-135m, tinyllama"):
        find_base(str(tmp_path / "gone"), tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelUnavailable, match=f"{missing} is missing"):
        digest(folder)


@pytest.mark.parametrize(("pickle", "reason"), [("pytorch_model.bin", "pickles"), ("notes.txt", "no weights")])
def test_only_safetensors_are_weights(folder: Path, pickle: str, reason: str) -> None:
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / pickle).write_bytes(b"x")
    with pytest.raises(ModelUnavailable, match=reason):
        digest(folder)


def test_code_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "modeling.py").write_text("")
    with pytest.raises(ModelUnavailable, match="Python files"):
        digest(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "asking",
    [
        {"auto_map": {"AutoModel": "evil--x.Y"}},
        {"text_config": {"auto_map": {}}},
        {"_attn_implementation_internal": "evil/kernel"},
        {"layers": [{"_attn_implementation": "evil/kernel"}]},
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(folder: Path, file: str, asking: dict[str, object]) -> None:
    (folder / file).write_text(json.dumps(asking))
    with pytest.raises(ModelUnavailable, match="asks for code"):
        digest(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_configuration_is_one_line(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelUnavailable) as caught:
        digest(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model-2.safetensors"])
def test_every_file_that_matters_is_in_the_digest(folder: Path, name: str) -> None:
    before = digest(folder)
    (folder / name).write_text('{"other": 1}')
    assert digest(folder) != before


def test_which_file_holds_which_bytes_is_in_the_digest(folder: Path) -> None:
    before = digest(folder)
    (folder / "model-1.safetensors").write_bytes(b"two")
    (folder / "model-2.safetensors").write_bytes(b"one")
    assert digest(folder) != before


def test_files_that_decide_no_text_are_not_in_the_digest(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    (folder / "README.md").write_text("hello")
    (folder / "generation_config.json").write_text("{}")
    moved = folder.rename(tmp_path / "elsewhere")
    assert digest(moved) == before


def test_the_embedded_model_is_known_by_its_source(folder: Path) -> None:
    write_record(folder)
    assert digest(folder) == embedded_digest()
    (folder / "tokenizer.json").write_text('{"swapped": 1}')
    assert digest(folder) == embedded_digest()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model-1.safetensors"])
def test_a_file_changed_since_the_conversion_is_noticed(folder: Path, name: str) -> None:
    write_record(folder)
    find_base(str(folder), HOME).check()
    (folder / name).write_text('{"swapped": 1}')
    with pytest.raises(ModelUnavailable, match=name):
        find_base(str(folder), HOME).check()


def test_a_file_gone_since_the_conversion_is_noticed(folder: Path) -> None:
    write_record(folder)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"model-2\.safetensors"):
        find_base(str(folder), HOME).check()


def test_a_file_added_since_the_conversion_is_noticed(folder: Path) -> None:
    write_record(folder)
    (folder / "model-3.safetensors").write_bytes(b"three")
    with pytest.raises(ModelUnavailable, match="does not list every file"):
        digest(folder)


def test_another_converter_is_another_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(folder)
    before = embedded_digest()
    monkeypatch.setattr(bases, "CONVERTER", bases.CONVERTER + 1)
    assert embedded_digest() != before
    with pytest.raises(ModelUnavailable, match="another version"):
        digest(folder)


def test_a_damaged_record_is_refused(folder: Path) -> None:
    (folder / RECORD).write_text("{")
    with pytest.raises(ModelUnavailable, match=RECORD):
        digest(folder)


def test_looking_a_model_up_needs_no_torch() -> None:
    program = (
        "import sys, enrich.engine.bases, enrich.engine.adapter, enrich.engine.fetch\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
