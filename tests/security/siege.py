"""A program: what the tool does where no socket may be opened, memory and time are short, a package that fetches
kernels is installed, and model folders are hostile. `python -m tests.security.siege PLACE`, as `besieged` makes it.

It prints one JSON object. On standard error, what is said while a folder is loaded lies between NUL characters.
"""

import json
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY, SECONDS = 8 << 30, 120

# As long as the process lives: a hook cannot be taken away again.
_refused: list[str] = []


def _refuse_sockets(event: str, _: Any) -> None:
    if event.startswith("socket."):
        _refused.append(event)
        raise PermissionError(event)


def main(place: Path) -> int:
    """Nothing of the tool, or of what it imports, is loaded before the limits are in force."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    sys.addaudithook(_refuse_sockets)
    told: dict[str, Any] = {"nights": _nights(place), "libraries": _libraries(), "loaded": _load_all(place)}
    told["sockets"], told["control"] = list(_refused), _reaches_out()
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    return 0


def _nights(place: Path) -> dict[str, int]:
    """The exit status of a night with each model."""
    from enrich.cli import main as enrich

    config = ["--config", str(place / "enrich.toml")]
    models = {"echo": ["--engine", "echo"], "model": ["--base", str(place / "model"), "--adapter", "none"]}
    return {
        name: enrich(["run", str(place / name / "catalogue.jsonl"), *config, *flags]) for name, flags in models.items()
    }


def _libraries() -> dict[str, bool]:
    """What the libraries took from the environment when they were imported."""
    from huggingface_hub import constants
    from transformers.integrations import hub_kernels

    return {"offline": constants.HF_HUB_OFFLINE, "fetches_kernels": hub_kernels._kernels_enabled}


def _load_all(place: Path) -> dict[str, Any]:
    """Of each way to load a folder, and each folder: how it ended, and whether the canary sang."""
    canary = place / "sang"
    told: dict[str, Any] = {}
    for way in (as_we_do, without_checks, carelessly):
        for folder in sorted((place / "folders").iterdir()):
            sys.stderr.write(f"\0{way.__name__} {folder.name}\0")
            ended = _outcome(way, folder)
            told.setdefault(way.__name__, {})[folder.name] = [ended, canary.exists()]
            if canary.exists():
                canary.rmdir()
    sys.stderr.write("\0")
    return told


def _outcome(load: Callable[[Path], object], folder: Path) -> str:
    try:
        load(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "loaded"


def as_we_do(folder: Path) -> None:
    """Looked at, then loaded."""
    from enrich.engine.bases import find_base
    from enrich.engine.model import load_model

    load_model(find_base(str(folder), Path("nowhere")), device="cpu")


def without_checks(folder: Path) -> None:
    """Loaded as we do, but nothing looked at the folder before."""
    from enrich.engine.bases import Base
    from enrich.engine.model import load_model

    load_model(Base("model", folder, "unchecked"), device="cpu")


def carelessly(folder: Path) -> None:
    """Loaded as many a tutorial does."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)


def _reaches_out() -> bool:
    """Whether a socket can be opened after all."""
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1).close()
    except PermissionError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
