"""The templates of the gallery and of what search shows: `gallery.html` has their macros, `gallery.css` their looks."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def environment(*more: Path) -> Environment:
    """Jinja over this folder's templates, and those of `more`; whatever comes from data is escaped."""
    loader = FileSystemLoader([*more, TEMPLATES])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def rendered(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)
