"""Flags that stand for settings: the same for every command that has them."""

import argparse
from typing import Any

from enrich.settings import Settings, load_settings

_SECTIONS = {
    "title": "catalogue",
    "description": "catalogue",
    "attributes": "catalogue",
    "id": "catalogue",
    "records": "catalogue",
    "base": "model",
    "adapter": "model",
    "max_new_tokens": "text",
    "engine": "machine",
    "slots": "machine",
    "gpus": "machine",
    "cluster": "machine",
    "state": "machine",
    "gpu_hour_price": "machine",
    "metrics": "machine",
    "deadline": "night",
    "max_rows": "night",
    "budget": "night",
    "priority": "night",
    "retries": "quality",
    "max_rejected": "publish",
}


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings file that `--config` names, with the flags that were given laid over it."""
    overrides: dict[str, dict[str, Any]] = {}
    for name, section in _SECTIONS.items():
        value = getattr(options, name, None)
        if value is not None:
            overrides.setdefault(section, {})[name] = value.split(",") if name == "attributes" else value
    return load_settings(getattr(options, "config", None), overrides)
