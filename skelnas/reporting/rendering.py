"""Text from the Jinja templates of this package."""

from __future__ import annotations


def render(template: str, **context: object) -> str:
    """Fill in a template; values are escaped in HTML, and a missing one is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("skelnas.reporting"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(context)
