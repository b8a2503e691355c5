"""Check of a chat template's syntax. Templates are parsed and never rendered."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def syntax_problem(template: str) -> str | None:
    """Return the mistake in a template in Jinja, None if it has none.

    >>> syntax_problem("{% for message in messages %}{{ message.content }}{% endfor %}")
    >>> syntax_problem("{% if messages %}")[:44]
    'line 1 of the template: Unexpected end of te'
    """
    from jinja2 import TemplateSyntaxError

    try:
        _environment().parse(template)
    except TemplateSyntaxError as error:
        return f"line {error.lineno} of the template: {error.message}"
    return None


@cache
def _environment() -> Environment:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `generation`, with which transformers marks what the model wrote."""

        tags = {"generation"}  # noqa: RUF012 - the name and type that Jinja asks for

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", Generation])
