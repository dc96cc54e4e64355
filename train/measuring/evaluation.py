"""What an evaluation found, as a JSON file and as a page. Needs no model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from enrich import __version__, durable
from enrich.engine.adapter import Adapter
from enrich.errors import IOFailure, NoInput, SettingsError
from enrich.settings import Settings
from train.measuring.contenders import NEW, Contender, training_record
from train.measuring.gate import Decision
from train.measuring.measures import Figures, Written
from train.page import render

RECORD = "evaluate.json"
PAGE = "evaluate.html"

_SHARES = ("validation_share", "test_share")
_VERSIONS = ("torch", "transformers", "peft", "sacrebleu", "rouge-score")


@dataclass(frozen=True)
class Evaluation:
    """Figures, and samples of the texts, of every contender by its name, over the same rows.

    `in_force` is the digest of the adapter to beat, None for the bare base. `decision` is None without a new
    adapter, and when the rows were not held out for it. `num_seen` pairs were left out because a contender may have
    learnt from them, `num_unsayable` because they have no ids.
    """

    split: str
    contenders: tuple[Contender, ...]
    figures: Mapping[str, Figures]
    samples: Mapping[str, Sequence[Written]]
    in_force: str | None
    decision: Decision | None
    num_seen: int
    num_unsayable: int

    @property
    def num_rows(self) -> int:
        """Rows that were measured."""
        return next(iter(self.figures.values())).num_rows

    def lines(self) -> list[str]:
        """The figures that decide, a line for each contender, and the decision."""
        told = [f"{contender.name}: {_told(self.figures[contender.name])}" for contender in self.contenders]
        if self.decision is None:
            return told
        return [*told, "better" if self.decision.promoted else "not better", *self.decision.reasons]


def save(evaluation: Evaluation, data: Mapping[str, Any], settings: Settings, out: Path) -> None:
    """Writes `evaluate.json` and `evaluate.html` into `out`; `data` is the record of the prepared folder.

    The same evaluation writes the same bytes. The record comes last: a page alone decides nothing.
    """
    record = _record(evaluation, data, settings)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IOFailure(f"{out}: cannot be made: {error.strerror}; name another folder") from error
    page = render("evaluate.html", title="Evaluation", evaluation=evaluation, samples=_rows(evaluation), record=record)
    durable.write(out / PAGE, page.encode())
    durable.write(out / RECORD, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def read_decision(folder: Path, adapter: Adapter, in_force: Adapter | None) -> Decision:
    """What an evaluation in `folder` decided about `adapter`, when it is still about what is in force.

    Raises `NoInput` when there is none, `SettingsError` when it is about another adapter or another opponent.
    """
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        decision, digests = record["decision"], {each["name"]: each["adapter"] for each in record["contenders"]}
        figures = {each["name"]: Figures(**each["figures"]) for each in record["contenders"]}
    except FileNotFoundError:
        raise NoInput(f"{file}: no such evaluation; run `enrich-train evaluate` first") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SettingsError(f"{file}: cannot be read ({error!r}); run `enrich-train evaluate` again") from None
    if decision is None or (digests.get(NEW) or {}).get("digest") != adapter.digest:
        raise SettingsError(f"{file}: decides nothing about {adapter.folder}; run `enrich-train evaluate` again")
    if record["in_force"] != (in_force.digest if in_force else None):
        raise SettingsError(f"{file}: another adapter is in force by now; run `enrich-train evaluate` again")
    return Decision(decision["promoted"], tuple(decision["reasons"]), figures[NEW])


def _told(figures: Figures) -> str:
    return (
        f"loss {figures.loss:.3f} nats per token, {figures.ended:.1%} ended, {figures.repetition:.1%} repeated, "
        f"{figures.texts_with_unsupported:.1%} with unsupported numbers, {figures.held:.1%} held, "
        f"chrF {figures.chrf:.1f}, ROUGE-L {figures.rouge_l:.3f}, {figures.num_rows} rows"
    )


def _record(evaluation: Evaluation, data: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    decision = evaluation.decision
    return {
        "split": evaluation.split,
        "rows": {
            "measured": evaluation.num_rows,
            "maybe_seen": evaluation.num_seen,
            "unsayable": evaluation.num_unsayable,
        },
        "data": {"digest": data["digest"], "seed": data["seed"], **{name: data["options"][name] for name in _SHARES}},
        "contenders": [_of_contender(each, evaluation.figures[each.name]) for each in evaluation.contenders],
        "in_force": evaluation.in_force,
        "decision": {"promoted": decision.promoted, "reasons": decision.reasons} if decision else None,
        "settings": settings.text.model_dump(mode="json"),
        "versions": {"enrich": __version__, **{name: version(name) for name in _VERSIONS}},
    }


def _of_contender(contender: Contender, figures: Figures) -> dict[str, Any]:
    adapter = contender.adapter
    return {
        "name": contender.name,
        "base": {"name": contender.base.name, "digest": contender.base.digest},
        "adapter": adapter
        and {
            "name": adapter.folder.name,
            "digest": adapter.digest,
            "data_digest": training_record(adapter).get("data_digest"),
        },
        "template_id": contender.template.id,
        "figures": asdict(figures),
    }


def _rows(evaluation: Evaluation) -> list[tuple[Written, ...]]:
    """The samples side by side, in the order of the contenders."""
    return list(zip(*(evaluation.samples[each.name] for each in evaluation.contenders), strict=True))
