"""The output of a command: one JSON object with --json, else text for a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]

_json_output: list[TextIO] = []
"""Standard output, while it is reserved for the one JSON object."""


@contextmanager
def reserved_stdout(reserved: bool) -> Iterator[None]:
    """With --json, whatever else prints (a raylet's warnings) goes to standard error."""
    if not reserved:
        yield
        return
    _json_output.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _json_output.pop()


def emit(value: dict[str, Any], as_json: bool, show: Callable[[Console], None]) -> None:
    """Print `value` as JSON, or let `show` print it for a person."""
    if as_json:
        (_json_output[-1] if _json_output else sys.stdout).write(json.dumps(value) + "\n")
    else:
        show(Console())
