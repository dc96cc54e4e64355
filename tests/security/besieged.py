"""The place of a siege: models, catalogues and folders that ask for what they must not get; and what came of it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.conftest import build_tiny, edit_json
from ..runs import PUBLISH_ALL, ROOT, environment, write_catalogue
from .bombs import BOMBS, LOOPS
from .canary import Canary

HUB_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "USE_HUB_KERNELS")
KERNEL = "kernels-community/evil"
ASKING: dict[str, dict[str, Any]] = {
    "attn_internal": {"_attn_implementation_internal": KERNEL},
    "attn_private": {"_attn_implementation": KERNEL},
    "attn_public": {"attn_implementation": KERNEL},
    "attn_renamed": {"attribute_map": {"harmless": "_attn_implementation"}, "harmless": KERNEL},
    "auto_map": {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
    "auto_map_unknown": {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    },
}
"""What config.json says in folders that ask for code."""

FORGED = "\x1b[31mred\nenrich: all is well"

ROWS = [{"title": f"w{number} w{number + 7}", "description": None} for number in range(10, 30)]
SETTINGS = """
[text]
template = "<s>{title}"
max_prompt_tokens = 16
max_new_tokens = 8
[machine]
device = "cpu"
batch_rows = 8
[quality]
min_score = 0
retries = 0
[quality.actions]
"""
SETTINGS += "".join(f'{code} = "{action}"\n' for code, action in PUBLISH_ALL["actions"].items())

# As far as it matters here: whoever asks it for a kernel makes the canary sing.
_KERNELS = """
class _Anything:
    def __init__(self, *_, **__): pass
    def __call__(self, *_, **__): return self
    def __getattr__(self, _): return _Anything()

def __getattr__(name): return _Anything()

def use_kernel_forward_from_hub(*_, **__): return lambda each: each

use_kernelized_func = use_kernel_func_from_hub = use_kernel_forward_from_hub

def get_kernel(*_, **__):
{code}
    raise ImportError("asked for a kernel")
"""


@dataclass(frozen=True)
class Siege:
    """What the program told."""

    place: Path
    told: dict[str, Any]
    stderr: str

    def ran(self, way: str) -> set[str]:
        """The folders that had code run when they were loaded so."""
        return {name for name, (_, sang) in self.told["loaded"][way].items() if sang}

    def outcome(self, way: str, name: str) -> str:
        """How the loading ended."""
        return str(self.told["loaded"][way][name][0])

    def said(self, way: str, name: str) -> str:
        """What was written to standard error meanwhile."""
        return self.stderr.split(f"\0{way} {name}\0", 1)[1].split("\0", 1)[0]


def besiege(place: Path) -> Siege:
    """Makes the place and runs the program in it, in an environment that says nothing of any hub."""
    canary = Canary(place / "sang")
    model = build_tiny(place / "clean")
    _write_nights(place, model)
    _write_folders(place / "folders", model, canary)
    _write_kernels(place / "path", canary)
    path = os.pathsep.join([str(place / "path"), environment()["PYTHONPATH"]])
    variables = environment(PYTHONPATH=path, HOME=str(place / "home"), XDG_CACHE_HOME=str(place / "cache"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.siege", str(place)],
        cwd=ROOT,
        env={name: value for name, value in variables.items() if not name.startswith(HUB_VARIABLES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return Siege(place, json.loads(done.stdout.splitlines()[-1]), done.stderr.decode())


def _write_nights(place: Path, model: Path) -> None:
    """A catalogue for each of the two models, one of which brings chat templates and settings that nobody wants."""
    for name in ("echo", "model"):
        (place / name).mkdir()
        write_catalogue(place / name / "catalogue.jsonl", ROWS)
    (place / "enrich.toml").write_text(SETTINGS)
    add_bombs(Path(shutil.copytree(model, place / "model", dirs_exist_ok=True)))


def add_bombs(folder: Path) -> None:
    """Every place where a chat template may lie, and generation settings."""
    named = [{"name": f"bomb {number}", "template": bomb} for number, bomb in enumerate(BOMBS)]
    edit_json(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": LOOPS}, *named])
    (folder / "chat_template.jinja").write_text(LOOPS)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": LOOPS}))
    (folder / "additional_chat_templates").mkdir()
    for number, bomb in enumerate(BOMBS):
        (folder / "additional_chat_templates" / f"bomb{number}.jinja").write_text(bomb)
    (folder / "generation_config.json").write_text(json.dumps({"max_length": 1, "suppress_tokens": [40, 41]}))


def _write_folders(place: Path, model: Path, canary: Canary) -> None:
    for name, fields in ASKING.items():
        made = Path(shutil.copytree(model, place / name))
        edit_json(made / "config.json", **fields)
        # Where the configuration alone asks, Python in the folder must not be what it is refused for.
        if "auto_map" in fields:
            (made / "evil.py").write_text(canary.as_code())
    _forge_names(Path(shutil.copytree(model, place / "names")))


def _forge_names(folder: Path) -> None:
    """A tensor whose name is a line of a log."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors") | {FORGED: torch.ones(1)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _write_kernels(path: Path, canary: Canary) -> None:
    """An installed package of a version that transformers accepts."""
    from transformers.utils.import_utils import KERNELS_MIN_VERSION

    (path / "kernels").mkdir(parents=True)
    code = "".join(f"    {line}\n" for line in canary.as_code().splitlines())
    (path / "kernels" / "__init__.py").write_text(_KERNELS.format(code=code))
    about = path / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
