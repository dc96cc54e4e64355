"""A settings file and a prompt are text: nothing in them is filled in, evaluated or followed, but for our placeholders.
A chat template of a model is not even read."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from enrich.errors import SettingsError
from enrich.products import Product
from enrich.prompt import ByteTokenizer, PromptWriter, Template
from enrich.settings import Settings, load_settings

from ..conftest import Command
from ..runs import PUBLISH_ALL, Row, enrich, output_of, read_rows, snapshot, write_catalogue
from .bombs import LOOPS
from .canary import Canary
from .code import imported, importing

if TYPE_CHECKING:
    from .besieged import Siege

SECRET = "s3cr3t-of-the-environment"  # noqa: S105 - it is there to be looked for
TOML = """
[text]
template = "<s>$SECRET %(SECRET)s %SECRET% ~ `id` $(id) {title}: {description}"
[catalogue]
placeholders = ["${SECRET}", "~"]
[machine]
state = "${SECRET}/state"
"""

# --- the settings file ---------------------------------------------------------------------------------------------


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """In the environment, and the working folder an empty one."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    return SECRET


def test_nothing_is_filled_in_from_the_environment(secret: str, tmp_path: Path, enrich_run: Command) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.jsonl", [{"title": "Mug ${SECRET}"}])
    Path("enrich.toml").write_text(TOML)
    outcome = enrich_run(catalogue, "--config", "enrich.toml")
    assert outcome.status == 0, outcome.said
    assert [row["description"] for row in outcome.rows] == ["Mug ${SECRET}"]
    settings = load_settings("enrich.toml")
    writer = PromptWriter(Template.parse(settings.text.template), ByteTokenizer(), 512)
    (prompt,) = writer.write([Product("Mug")])
    said = bytes(each % 256 for each in prompt.ids[1:]).decode()
    assert said == "$SECRET %(SECRET)s %SECRET% ~ `id` $(id) Mug:"
    assert (tmp_path / "${SECRET}" / "state" / "memory.sqlite").is_file()
    assert secret not in outcome.said + outcome.printed
    assert not [name for name, content in snapshot(tmp_path).items() if secret.encode() in (content or b"")]


@pytest.mark.parametrize(
    ("section", "key", "status"),
    [("model", "base", 69), ("model", "adapter", 69), ("catalogue", "title", 78), ("night", "priority", 78)],
)
def test_a_name_that_looks_like_a_variable_is_a_name(
    secret: str, tmp_path: Path, enrich: Command, section: str, key: str, status: int
) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.jsonl", [{"title": "Mug"}])
    engine = "auto" if section == "model" else "echo"
    Path("enrich.toml").write_text(f'[machine]\nengine = "{engine}"\n[{section}]\n{key} = "${{SECRET}}"\n')
    outcome = enrich("run", catalogue, "--config", "enrich.toml")
    assert outcome.status == status
    assert "${SECRET}" in outcome.error
    assert secret not in outcome.error


@pytest.mark.parametrize("section", Settings.model_fields)
def test_a_key_that_no_section_has_is_refused_and_its_value_is_not_told(section: str) -> None:
    with pytest.raises(SettingsError, match=rf"{section}\.__class__") as caught:
        load_settings(None, {section: {"__class__": SECRET}})
    assert SECRET not in str(caught.value)


def test_yaml_that_would_run_code_is_no_settings_file(tmp_path: Path, canary: Canary, enrich: Command) -> None:
    yaml = pytest.importorskip("yaml")
    file = tmp_path / "enrich.toml"
    file.write_text(f"text: !!python/object/apply:os.makedirs ['{canary.folder}']\n")
    outcome = enrich("run", write_catalogue(tmp_path / "c.jsonl", [{"title": "Mug"}]), "--config", file)
    assert outcome.status == 78
    assert not canary.sang
    yaml.unsafe_load(file.read_text())
    assert canary.sang, "the canary does sing where YAML is believed"


def test_nothing_reads_yaml() -> None:
    assert importing({"yaml", "ruamel"}, imported()) == {}
    assert "enrich/settings.py" in importing({"tomllib"}, imported())


# --- the prompt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{title!r}",
        "{title:>99999999}",
        "{title[0]}",
        "{title.__init__.__globals__}",
        "{0} {title}",
        "{SECRET} {title}",
        "${SECRET} {title}",
        "{__class__} {title}",
        "{{attributes.x}} {title}",
        "{title} {self}",
    ],
)
def test_a_format_string_is_no_template(template: str) -> None:
    with pytest.raises(SettingsError, match=r"^template: "):
        Template.parse(template)


@pytest.mark.parametrize("around", ["%s %(title)s %d", "$title $(title)", "\\x41 \\u0041", "}} {% x %", "<%= 7 %>"])
def test_other_languages_placeholders_are_words(around: str) -> None:
    template = Template.parse(f"{around} {{title}} {around}")
    (prompt,) = PromptWriter(template, ByteTokenizer(), 512).write([Product("Mug")])
    assert bytes(each % 256 for each in prompt.ids).decode() == f"{around} Mug {around}"


EVALUATED = [
    "{title}",
    "{0}",
    "{}",
    "{x.__class__}",
    "{title.__init__.__globals__[SECRET]}",
    "{title:>999999999}",
    "{attributes!r}",
    "%s%s%s%n %(SECRET)s %99999999d",
    "$SECRET ${SECRET} $(id) `id`",
    "{{7*7}} {%raw%} {# x #}",
    "<%= 7*7 %> #{7*7}",
    "\\x41\\u0041\\101 \\N{BULLET}",
    "f'{7*7}'",
]


def test_no_field_of_a_row_is_evaluated(secret: str, tmp_path: Path) -> None:
    """As title, attribute and column name: echo says them back as they are."""
    rows: list[Row] = [{"title": f"Mug {each}", "{title}": each, "description": None} for each in EVALUATED]
    catalogue = write_catalogue(tmp_path / "catalogue.parquet", rows)
    settings = {"attributes": ["{title}"]}
    assert enrich(catalogue, catalogue=settings, text={"max_prompt_tokens": 512}, quality=PUBLISH_ALL).status == 0
    found = [row["description"] for row in read_rows(output_of(catalogue))]
    assert found == [f"Mug {each}; {{title}}: {each}" for each in EVALUATED]
    assert secret not in "".join(found)


# --- chat templates ------------------------------------------------------------------------------------------------


def test_a_model_with_chat_templates_that_never_end_writes_what_it_writes_without(
    siege: "Siege", tmp_path: Path
) -> None:
    """It ran within the memory and the time of the siege; here is the same model without them."""
    assert (siege.place / "model" / "chat_template.jinja").is_file()
    assert siege.told["nights"]["model"] == 0
    catalogue = siege.place / "model" / "catalogue.jsonl"
    sections = {name: dict(section) for name, section in load_settings(siege.place / "enrich.toml")}
    sections["machine"] = {"engine": "auto", "device": "cpu", "batch_rows": 8}
    sections["model"] = {"base": str(siege.place / "clean"), "adapter": "none"}
    enrich(catalogue, tmp_path / "out.parquet", **sections)
    expected = [row["description"] for row in read_rows(tmp_path / "out.parquet")]
    assert [row["description"] for row in read_rows(output_of(catalogue))] == expected
    assert len({*expected}) > 5


class Late(Exception):
    """The time is up."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def ring(_: int, __: FrameType | None) -> None:
        raise Late

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_rendered_such_a_template_does_not_end() -> None:
    """In the sandbox that transformers renders chat templates in."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    with pytest.raises(Late), at_most(0.5):
        ImmutableSandboxedEnvironment().from_string(LOOPS).render()
