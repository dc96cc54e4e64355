"""Settings: what decides a text, what decides only speed, and where things are found.

They come from `enrich.toml` and the command line, are checked all at once, and are frozen. Every field's
`description` is its documentation; `samples/enrich.toml` shows each with its default.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from enrich.errors import NoInput, SettingsError

DEFAULT_TEMPLATE = "<s>[INST] Gere uma descrição para o seguinte produto: {title} [/INST] {description} </s>"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CatalogueSettings(_Section):
    """Where a record keeps what we need, and when its description counts as missing."""

    title: str | None = Field(default=None, description="column of the title; found by its usual names when not given")
    description: str | None = Field(
        default=None, description="column of the description; found by its usual names when not given"
    )
    attributes: tuple[str, ...] = Field(
        default=(), description="columns that feed the text beside the title; a dot reaches into a nested one"
    )
    id: str | None = Field(default=None, description="column that names a product in reports")
    records: str | None = Field(
        default=None,
        description="path to the records inside one wrapping JSON object, such as products.items",
    )
    placeholders: tuple[str, ...] = Field(
        default=(),
        description="texts that stand for a missing description, compared trimmed and without case",
    )

    @field_validator("placeholders")
    @classmethod
    def _fold(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text.strip().casefold() for text in value))


class TextSettings(_Section):
    """Everything here decides the text, so all of it goes into the keys: a change never reuses an old text."""

    template: str = Field(
        default=DEFAULT_TEMPLATE, description="the prompt; {title} and {attributes} are the row's own"
    )
    max_prompt_tokens: int = Field(
        default=192, ge=16, le=4096, description="longer titles and attributes are cut to this, in tokens"
    )
    max_new_tokens: int = Field(default=160, ge=1, le=4096, description="length limit of a description, in tokens")
    repetition_penalty: float = Field(
        default=1.0,
        ge=1.0,
        le=2.0,
        description="above 1, what a text has said already becomes less likely to be said again; 1 changes nothing",
    )
    temperature: float = Field(
        default=0.0, ge=0.0, le=2.0, description="0 takes the likeliest token; above, tokens are drawn by lot"
    )
    top_k: int = Field(default=0, ge=0, description="draws among the so many likeliest tokens; 0 among all")
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="draws among the likeliest tokens that together weigh so much"
    )
    seed: int = Field(default=0, ge=0, description="of the lots, which depend on nothing else but the row")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="number type of the weights; auto: bfloat16 on CUDA (float16 before Ampere), else float32",
    )
    quantize: Literal["none", "8bit", "4bit"] = Field(
        default="none",
        description="weights packed by bitsandbytes, for cards that cannot hold the model; CUDA only",
    )


class ModelSettings(_Section):
    """Which weights write. They enter the keys by the digest of their content."""

    base: str | None = Field(
        default=None,
        description="preset (smollm2-135m, tinyllama) or folder; the adapter's own base when not given",
    )
    adapter: str | None = Field(
        default=None,
        description="adapter folder, or none; when not given adapters/current, or the shipped one where it fits",
    )


class AdaptersSettings(_Section):
    """Several adapters on one base. Each row's text is of its own adapter's making, and so is its key."""

    column: str | None = Field(
        default=None, description="column whose value chooses the adapter; a dot reaches into a nested one"
    )
    values: dict[str, str] = Field(
        default={},
        description="value → adapter folder, or none; rows of other values, or of none, take the adapter of [model]",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.values and self.column is None:
            raise ValueError("values without a column: name the column whose values they are")
        if self.column is not None and not self.values:
            raise ValueError(f"column {self.column} chooses among no adapters: list them under values")
        return self


class MachineSettings(_Section):
    """Everything here decides only speed and place: it never enters a key."""

    engine: Literal["auto", "grid", "padded", "echo"] = Field(
        default="auto", description="auto picks the fastest engine that fits the machine; echo needs no model"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where the model runs; auto is the CUDA card, else the CPU"
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        le=16384,
        description="sequences of the grid; as many as its memory allows, 32 on the CPU and 2,048 on CUDA at most, "
        "when not given",
    )
    batch_rows: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="rows of a padded batch; 8 on the CPU and 64 on CUDA when not given",
    )
    gpus: Literal["all"] | int | None = Field(
        default=None,
        description="cards to write on at once, through Ray: all, or so many; one, without Ray, when not given",
    )
    cluster: str | None = Field(
        default=None, description="address of a Ray cluster whose cards write: ray://HEAD:10001 or auto"
    )
    state: Path | None = Field(
        default=None, description="folder of the memory, the lock and the reports; .enrich beside the output"
    )
    gpu_hour_price: float | None = Field(
        default=None, gt=0, description="price of an hour of this machine: for what a night costs, and may cost"
    )
    metrics: Path | None = Field(
        default=None, description="file for node_exporter's textfile collector, written at the end of each run"
    )


class NightSettings(_Section):
    """When a night ends, whatever is left, and what comes first in it. Nothing of it enters a key."""

    deadline: str | None = Field(
        default=None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="local time, 06:00, by which the result is published: what is not written until then is pending",
    )
    max_rows: int | None = Field(default=None, ge=0, description="products that a run writes at most")
    budget: float | None = Field(
        default=None, gt=0, description="what a run may cost, at the price of an hour of this machine"
    )
    priority: str | None = Field(
        default=None,
        description="column whose largest values are written first, those without one last; a dot reaches into a "
        "nested one",
    )


class PublishSettings(_Section):
    """When a result may be published."""

    max_rejected: int | None = Field(
        default=None,
        ge=0,
        description="bad records above which nothing is published; the larger of 10 and 1 % when not given",
    )


Code = Literal[
    "empty",
    "unsupported_number",
    "unsupported_material",
    "unsupported_colour",
    "unsupported_brand",
    "unsupported_certification",
    "unsupported_warranty",
    "unsupported_origin",
    "unsupported_compatibility",
    "forbidden_claim",
    "html",
    "prompt_leftover",
    "instruction_echoed",
    "title_repeated",
    "repetition",
    "wrong_language",
    "url",
    "email",
    "phone",
    "personal_data",
    "price",
    "availability",
    "first_person",
    "too_short",
    "too_long",
    "cut_off",
    "trimmed",
]
"""What may speak against a text; `enrich_flags` holds these."""

Action = Literal["publish", "retry", "hold"]
ClaimKind = Literal["material", "colour", "brand", "certification"]


class QualitySettings(_Section):
    """When a text may be published without a person. Changing it judges all texts anew, and writes none anew."""

    locale: Literal["en", "pt"] | None = Field(
        default=None, description="language that the texts must be in; not looked at when not given"
    )
    retries: int = Field(
        default=2, ge=0, le=20, description="further attempts at a text that may not be published, before it is held"
    )
    min_score: int = Field(default=50, ge=0, le=100, description="texts of a lower score are tried again, then held")
    min_chars: int = Field(default=0, ge=0, description="shorter texts are tried again, then held")
    max_chars: int | None = Field(
        default=None,
        ge=1,
        description="longer texts are cut back to a full sentence, or tried again; the limit of a sales channel",
    )
    actions: dict[Code, Action] = Field(
        default={}, description="code → publish, retry or hold, in place of the default for that code"
    )
    forbidden: dict[str, tuple[str, ...]] = Field(
        default={},
        description="claims that no text may make, by what the row must say for it (a category), or by locale, or *",
    )
    terms: dict[ClaimKind, tuple[str, ...]] = Field(
        default={}, description="further words that claim a material, a colour, a brand or a certificate"
    )
    allowed: tuple[str, ...] = Field(
        default=(), description="names and words that never claim anything: the shop's own"
    )


class Settings(_Section):
    """All of it, frozen."""

    catalogue: CatalogueSettings = CatalogueSettings()
    text: TextSettings = TextSettings()
    model: ModelSettings = ModelSettings()
    adapters: AdaptersSettings = AdaptersSettings()
    machine: MachineSettings = MachineSettings()
    night: NightSettings = NightSettings()
    quality: QualitySettings = QualitySettings()
    publish: PublishSettings = PublishSettings()

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.night.budget is not None and self.machine.gpu_hour_price is None:
            raise ValueError("a budget without a price: say what an hour costs with gpu_hour_price")
        return self

    @property
    def names_base_and_template(self) -> bool:
        """Whether the operator named both, as an adapter needs that does not say what it was trained with."""
        return self.model.base is not None and "template" in self.text.model_fields_set


def load_settings(file: str | Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Reads a TOML file and lays `overrides` (section → field → value) over it.

    Raises `NoInput` when the file does not exist and `SettingsError` with every problem in one line.
    """
    sections = _read_toml(Path(file)) if file else {}
    for section, fields in (overrides or {}).items():
        merged = sections.setdefault(section, {})
        if isinstance(merged, dict):
            merged.update(fields)
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise SettingsError(f"{file or 'settings'}: {problems}") from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoInput(f"{file}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{file}: {error}") from None


def home() -> Path:
    """The folder that holds `models/` and `adapters/`: $ENRICH_HOME, else the checkout this package lies in."""
    configured = os.environ.get("ENRICH_HOME")
    return Path(configured) if configured else Path(__file__).resolve().parents[1]
