"""Reports as one HTML page each: self-contained, without scripts, whatever the texts in them say."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """The page of `template` (a file of train/templates); every value is escaped."""
    return _TEMPLATES.get_template(template).render(values)
