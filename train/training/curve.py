"""The losses of a training as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_curve(history: Sequence[dict[str, Any]], file: Path) -> None:
    """Draws training and validation loss (nats a token) over the steps of `history`, the trainer's log, as PNG."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        points = [(each["step"], each[key]) for each in history if key in each]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 40 else None)
    axes.set(xlabel="step", ylabel="loss, nats a token")
    axes.legend()
    axes.grid(alpha=0.3)
    # Without a date and a version: the same training draws the same file.
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
