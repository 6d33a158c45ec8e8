"""All cases of `benchmarks.illnesses`."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.illnesses.case import Case
from benchmarks.illnesses.cases_held_out import HELD_OUT
from benchmarks.illnesses.cases_settled import SETTLED

CASES: tuple[Case, ...] = (*SETTLED, *(replace(case, held_out=True) for case in HELD_OUT))
BY_NAME = {case.name: case for case in CASES}
