"""The templates of the gallery and of what search shows: `gallery.html` has their macros, `gallery.css` their looks."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def environment(*more: Path) -> Environment:
    """Jinja over this folder's templates, and those of `more`; in HTML, whatever comes from data is escaped."""
    return Environment(
        loader=FileSystemLoader([*more, TEMPLATES]),
        autoescape=lambda name: not str(name).endswith((".md", ".tex", ".txt")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def section_of(gallery: Any) -> str:
    """What a run finds (`sia.gallery.finds.Gallery`), for a page that has `palette.css`."""
    source = '{% from "gallery.html" import gallery_section %}{{ gallery_section(gallery) }}'
    return environment().from_string(source).render(gallery=gallery)


def rendered(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)
