"""An adapter folder: its weights file, the LoRA fields that peft acts on, and what it was trained for.

Reads and compares, and knows neither torch nor peft. Nothing in the folder is followed: no path to a base, no
module to import, no pickle.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enrich.engine.bases import EMBEDDED, PRESETS, Base
from enrich.errors import ModelUnavailable, SettingsError

WEIGHTS = "adapter_model.safetensors"
CURRENT = Path("adapters", "current")
"""The promoted adapter, under the home folder."""
SHIPPED = Path("samples", "adapters", "smollm2-135m")
"""The adapter that comes with the project, under the home folder: the default while none was promoted."""
NF4 = "nf4"
"""The `quantization` of an adapter that was trained over 4-bit weights, doubly quantised."""

# Handed to peft, and part of the digest.
_ACTING: dict[str, type | tuple[type, ...]] = {
    "r": int,
    "lora_alpha": (int, float),
    "target_modules": (list, str),
    "exclude_modules": (list, str),
    "modules_to_save": list,
    "bias": str,
    "lora_bias": bool,
    "use_rslora": bool,
    "use_dora": bool,
    "fan_in_fan_out": bool,
    "layers_to_transform": (list, int),
    "layers_pattern": (list, str),
    "rank_pattern": dict,
    "alpha_pattern": dict,
}

# Without effect on a trained adapter: records of the training, defaults of features that are off, and the
# fields through which a configuration could make peft load or import something. Dropped, whatever they say.
_INERT = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
}

# Looked at here and not handed on.
_CHECKED = {"peft_type", "task_type", "init_lora_weights"}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk.

    `peft` holds the configuration fields peft acts on. Template and base are None when the folder has no
    `enrich.json`, as with an adapter trained elsewhere. `quantization` says over which form of the base it was
    trained. `digest` is 32 hex digits over weights, `peft`, the template id and the quantisation.
    """

    folder: Path
    digest: str
    peft: dict[str, Any]
    template: str | None = None
    template_id: str | None = None
    base_name: str | None = None
    base_digest: str | None = None
    quantization: str | None = None

    def provenance(self) -> dict[str, str]:
        """How a published file names the adapter."""
        return {"name": self.folder.name, "digest": self.digest}

    def check(self, base: Base, template_id: str, explicit: bool) -> None:
        """Raises `SettingsError`, naming both sides, unless this adapter belongs to `base` and `template_id`.

        `explicit` says that the operator named a base and a template: the only way to run an adapter that
        does not say what it was trained with.
        """
        if self.template_id is None:
            if not explicit:
                raise SettingsError(
                    f"{self.folder}: no enrich.json says what it was trained with; give --base and a template"
                )
            return
        if self.base_digest != base.digest:
            raise SettingsError(
                f"{self.folder}: trained on {self.base_name} ({self.base_digest}), "
                f"not on {base.name} ({base.digest}); take its own base, or train an adapter for this one"
            )
        if self.template_id != template_id:
            raise SettingsError(
                f"{self.folder}: trained with template {self.template_id} ({self.template!r}), "
                f"not with {template_id}; take its own template, or train an adapter for this one"
            )


def adapter_in_force(home: Path) -> Path | None:
    """The folder of the promoted adapter, else that of the shipped one, else None. Neither is read."""
    # A link to nothing counts: to go on without the adapter that was promoted would be worse than to stop.
    return next((home / folder for folder in (CURRENT, SHIPPED) if os.path.lexists(home / folder)), None)


def base_of(adapter: Adapter | None) -> str:
    """The preset that an adapter was trained on; the embedded one without an adapter, or when it names no preset."""
    return adapter.base_name if adapter and adapter.base_name in PRESETS else EMBEDDED


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter folder. Raises `ModelUnavailable` when it is absent, unsafe, or no plain LoRA."""
    if not folder.is_dir():
        raise ModelUnavailable(f"{folder}: no such adapter folder; name one, or `none`")
    _refuse_unsafe(folder)
    peft = _acting_fields(folder / "adapter_config.json")
    trained = _read_training(folder / "enrich.json")
    digest = _digest(folder / WEIGHTS, peft, trained)
    return Adapter(folder, digest, peft, **trained)


def _refuse_unsafe(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file():
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            raise ModelUnavailable(f"{folder}: weights are a pickle, which can run code; save them as {WEIGHTS}")
        raise ModelUnavailable(f"{folder}: {WEIGHTS} is missing; train the adapter again or name another")
    if any(folder.glob("*.py")):
        raise ModelUnavailable(f"{folder}: holds Python files; adapters that bring code are refused")


def _acting_fields(file: Path) -> dict[str, Any]:
    config = _read_object(file)
    if config.get("peft_type") != "LORA":
        raise ModelUnavailable(f"{file}: peft_type is {config.get('peft_type')!r}; only LORA adapters run here")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelUnavailable(f"{file}: task_type is {config['task_type']!r}; only CAUSAL_LM adapters run here")
    # PiSSA, OLoRA, LoftQ and their kin change the base itself when they start: their tensors fit no other.
    if config.get("init_lora_weights") not in (None, True, False, "gaussian"):
        raise ModelUnavailable(
            f"{file}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base; "
            f"convert the adapter to a plain LoRA"
        )
    for key, value in config.items():
        # peft writes a null, a false or an empty value for every feature it knows and did not use.
        if key not in _ACTING.keys() | _INERT | _CHECKED and value:
            raise ModelUnavailable(f"{file}: {key} = {value!r} is not supported; only plain LoRA fields are")
    fields = {key: config[key] for key in sorted(_ACTING) if config.get(key) is not None}
    _refuse_wrong_types(file, fields)
    # peft saves its lists from sets, in an order that changes from one process to the next.
    return {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in fields.items()}


def _refuse_wrong_types(file: Path, fields: dict[str, Any]) -> None:
    for key, value in fields.items():
        if not isinstance(value, _ACTING[key]) or (isinstance(value, bool) and _ACTING[key] is not bool):
            raise ModelUnavailable(f"{file}: {key} = {value!r} has the wrong type; train the adapter again")
    if fields.get("r", 0) < 1 or "target_modules" not in fields:
        raise ModelUnavailable(f"{file}: r and target_modules are needed; train the adapter again")


def _read_training(file: Path) -> dict[str, str | None]:
    """What training wrote into the folder, by the names of the fields of `Adapter`; empty without its record."""
    if not file.exists():
        return {}
    training = _read_object(file)
    base = training.get("base")
    base = base if isinstance(base, dict) else {}
    fields = {
        "template": training.get("template"),
        "template_id": training.get("template_id"),
        "base_name": base.get("preset"),
        "base_digest": base.get("digest"),
    }
    if not all(isinstance(value, str) and value for value in fields.values()):
        raise ModelUnavailable(f"{file}: template, template_id, base.preset and base.digest are needed; train again")
    quantization = training.get("quantization")
    if quantization not in (None, NF4):
        raise ModelUnavailable(f"{file}: quantization {quantization!r} is not known; only {NF4} is")
    return {**fields, "quantization": quantization}


def _digest(weights: Path, peft: dict[str, Any], trained: dict[str, str | None]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (json.dumps(peft, sort_keys=True), trained.get("template_id") or "", trained.get("quantization") or ""):
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    try:
        with weights.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelUnavailable(f"{weights}: cannot be read ({error.strerror}); train the adapter again") from None
    return digest.hexdigest()


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{file}: cannot be read ({error}); train the adapter again") from None
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{file}: not a JSON object; train the adapter again")
    return value
