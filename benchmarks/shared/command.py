"""The command line that every benchmark has, and what it prints: the machine, and rows of the same shape."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.shared.machine import describe_machine

Row = dict[str, Any]
EMPTY: Row = {"case": "", "ours_s": None, "peer": None, "peer_s": None, "ratio": None, "floor_share": None}
"""What every row has; None: not measured in this case."""


def make_parser(
    doc: str | None, *, cases: Iterable[str] = (), default: Sequence[str] = (), runs: int = 0
) -> argparse.ArgumentParser:
    """A parser with --json, with --case where there are `cases` and with --runs where `runs` is above 0.

    Args:
        default: cases that run without --case; none: all.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(cases)
    if names:
        shown, usual = (", ".join(some).replace("%", "%%") for some in (names, default))
        parser.add_argument(
            "--case",
            choices=names,
            action="append",
            metavar="CASE",
            help=f"one of: {shown}; may be repeated (default: {usual or 'all'})",
        )
        parser.set_defaults(cases=list(default) or names)
    if runs:
        parser.add_argument("--runs", type=int, default=runs, help="measured runs of each side; the median counts (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def chosen_cases(given: argparse.Namespace) -> list[str]:
    """The cases to run, in the order that they were asked for."""
    return list(dict.fromkeys(given.case or given.cases))


def compared(case: str, ours_s: float, peer: str | None = None, peer_s: float | None = None, floor_s: float | None = None) -> Row:
    """A row: seconds of both sides, how many times the peer's seconds are ours, and the floor's share of ours."""
    return {
        "case": case,
        "ours_s": ours_s,
        "peer": peer,
        "peer_s": peer_s,
        "ratio": None if peer_s is None else peer_s / ours_s,
        "floor_share": None if floor_s is None else floor_s / ours_s,
    }


def emit(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the machine and the rows."""
    machine = describe_machine()
    if as_json:
        print(json.dumps({"machine": machine, "rows": [EMPTY | dict(row) for row in rows]}))
        return
    print(" · ".join(f"{key}: {value}" for key, value in machine.items() if key != "versions"))
    print(" · ".join(f"{key} {value}" for key, value in machine["versions"].items()))
    for row in rows:
        known = {key: value for key, value in row.items() if value is not None}
        print(" | ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in known.items()))


def note(text: str) -> None:
    """Tell the person something on standard error, where it is not part of the result."""
    print(text, file=sys.stderr, flush=True)


def has_package(name: str, what: str) -> bool:
    """Whether a package of the extra "bench" is installed; if not, says what is left out without it."""
    if importlib.util.find_spec(name) is not None:
        return True
    note(f'{what} is left out: it needs the package {name}; install the extra: pip install -c constraints.txt -e ".[bench]"')
    return False
