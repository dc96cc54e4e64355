"""Base models: where a preset or a folder lies, whether it is fit to load, and the digest of its content.

Knows files and digests only: no torch, no network. `fetch.py` puts presets in place, `model.py` loads them.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enrich.errors import ModelUnavailable

EMBEDDED = "smollm2-135m"
PRESETS = (EMBEDDED, "tinyllama")

EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the GGUF that the embedded model is converted from."""

CONVERTER = 2
"""To be raised whenever `fetch.py` would write other weights or token ids for the same GGUF."""

RECORD = "enrich-base.json"
"""Written by `fetch.py` beside a converted model: its source, its converter, and a digest of every file."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Base:
    """A base model on disk. `digest` is 32 hex digits over its weights, configuration and tokenizer."""

    name: str
    folder: Path
    digest: str

    def check(self) -> None:
        """Verifies a converted model against its record, file by file; other bases were read for the digest.

        Raises `ModelUnavailable` naming the first file that differs.
        """
        record = _read_record(self.folder)
        if record is None:
            return
        for name, expected in record["files"].items():
            if _digest_file(self.folder / name) != expected:
                raise ModelUnavailable(f"{self.folder / name}: not as converted; {_make_model(self.name)}")


def find_base(name_or_path: str, home: Path) -> Base:
    """Finds a preset under `home`/models, or a folder; `name_or_path` is never looked for on a network.

    Raises `ModelUnavailable` when it is absent, incomplete, or brings code with it.
    """
    if name_or_path in PRESETS:
        name, folder = name_or_path, home / "models" / name_or_path
        if not folder.is_dir():
            raise ModelUnavailable(f"{folder}: the model is not there; {_make_model(name)}")
    else:
        folder = Path(name_or_path)
        name = folder.resolve().name
        if not folder.is_dir():
            raise ModelUnavailable(f"{folder}: no such model folder; name one, or a preset: {', '.join(PRESETS)}")
    _refuse_unfit(folder)
    record = _read_record(folder)
    return Base(name, folder, embedded_digest() if record else _digest_content(folder))


def embedded_digest() -> str:
    """The digest of the embedded model: the same on every machine, whatever its libraries wrote."""
    return _digest([EMBEDDED_SHA256.encode(), str(CONVERTER).encode()])


def write_record(folder: Path) -> None:
    """Records every file of a freshly converted embedded model, for `Base.check`."""
    record = {
        "preset": EMBEDDED,
        "gguf_sha256": EMBEDDED_SHA256,
        "converter": CONVERTER,
        "files": {path.name: _digest_file(path) for path in sorted(folder.iterdir())},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _make_model(name: str) -> str:
    return f"run `make model BASE={name}`" if name in PRESETS else "fetch it again"


def _refuse_unfit(folder: Path) -> None:
    for required in ("config.json", "tokenizer.json"):
        if not (folder / required).is_file():
            raise ModelUnavailable(f"{folder}: not a model folder, {required} is missing")
    if not _any(folder, ("*.safetensors",)):
        if _any(folder, _PICKLES):
            raise ModelUnavailable(f"{folder}: weights are pickles, which can run code; only safetensors are loaded")
        raise ModelUnavailable(f"{folder}: holds no weights; *.safetensors are needed")
    if _any(folder, ("*.py",)):
        raise ModelUnavailable(f"{folder}: holds Python files; models that bring code are refused")
    if (folder / "adapter_config.json").exists():
        # The library would put it into the base, by a configuration that no digest covers.
        raise ModelUnavailable(f"{folder}: holds an adapter beside the weights; move it out and name it with --adapter")
    _refuse_weights_elsewhere(folder)
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _refuse_code(folder / name)


def _refuse_weights_elsewhere(folder: Path) -> None:
    """An index names the files that are loaded: only those that are digested may be."""
    file = folder / "model.safetensors.index.json"
    if not file.is_file():
        return
    names = _read_object(file).get("weight_map")
    for name in names.values() if isinstance(names, dict) else [None]:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelUnavailable(f"{file}: names weights that are no safetensors of this folder; fetch it again")


def _refuse_code(file: Path) -> None:
    for key in _keys(_read_object(file)):
        # The last two lead to one of the others, or to other weights, by another name.
        if key.startswith("_attn_implementation") or key in ("auto_map", "attribute_map", "transformers_weights"):
            raise ModelUnavailable(f"{file}: key {key} asks for code or weights elsewhere; such models are refused")


def _keys(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _any(folder: Path, patterns: Iterable[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{file}: cannot be read ({error}); fetch the model again") from None
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{file}: not a JSON object; fetch the model again")
    return value


def _read_record(folder: Path) -> dict[str, Any] | None:
    if not (folder / RECORD).exists():
        return None
    record = _read_object(folder / RECORD)
    if (record.get("gguf_sha256"), record.get("converter")) != (EMBEDDED_SHA256, CONVERTER):
        raise ModelUnavailable(f"{folder}: converted by another version of enrich; {_make_model(EMBEDDED)}")
    files = record.get("files")
    if not isinstance(files, dict) or not {path.name for path in _content(folder)} <= files.keys():
        raise ModelUnavailable(f"{folder / RECORD}: does not list every file; {_make_model(EMBEDDED)}")
    return record


def _content(folder: Path) -> list[Path]:
    """The files that decide which text comes out; not the README, nor generation_config.json, never read."""
    named = [folder / name for name in ("config.json", "model.safetensors.index.json", *_TOKENIZER_FILES)]
    present = [file for file in named if file.is_file()]
    return sorted([*present, *folder.glob("*.safetensors")])


def _digest_content(folder: Path) -> str:
    return _digest(part for file in _content(folder) for part in (file.name.encode(), _digest_file(file).encode()))


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        # A length before each part: moving a byte from one part to the next must change the digest.
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _digest_file(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"{file}: cannot be read ({error.strerror}); fetch the model again") from None
