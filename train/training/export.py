"""The adapter folder: weights, what peft and `enrich` must know of them, and the story of the training."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from enrich.engine.adapter import NF4, WEIGHTS
from train.settings import TARGETS
from train.training.card import model_card
from train.training.curve import draw_curve

_SHARES = ("validation_share", "test_share")
_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets")


def write_adapter(
    folder: Path,
    name: str,
    tensors: dict[str, Any],
    lora: dict[str, Any],
    record: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Fills `folder` with an adapter called `name`.

    `tensors` are LoRA weights on the CPU in bfloat16, `lora` is peft's configuration, `record` is `prepare.json`
    of the data and `training` becomes `training.json`.
    """
    from safetensors.torch import save_file

    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    base = training["request"]["base"]["preset"]
    # The base by its name, not by the path it had here; the layers in one order, not in that of a set.
    portable = {"base_model_name_or_path": base, "inference_mode": True, "target_modules": sorted(TARGETS)}
    _write_json(folder / "adapter_config.json", lora | portable)
    _write_json(folder / "enrich.json", _promises(record, training))
    _write_json(folder / "training.json", {**training, "versions": {each: version(each) for each in _PACKAGES}})
    (folder / "README.md").write_text(model_card(name, record, training), encoding="utf-8")
    draw_curve(training["log"], folder / "loss.png")


def _promises(record: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """What `enrich` refuses another base or template by, and what a comparison of adapters needs."""
    request = training["request"]
    return {
        "base": request["base"],
        "template": request["template"],
        "template_id": request["template_id"],
        "quantization": NF4 if request["preset"]["quantize"] == "4bit" else None,
        "lengths": {
            "max_prompt_tokens": request["max_prompt_tokens"],
            "sequence_tokens": request["preset"]["sequence_tokens"],
        },
        "data_digest": record["digest"],
        "split": {"seed": record["seed"], **{name: record["options"][name] for name in _SHARES}},
        "license": record.get("license"),
        "metrics": {"validation_loss": training["validation_loss"]},
        "versions": {each: version(each) for each in _PACKAGES},
    }


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, default=sorted) + "\n", encoding="utf-8")
