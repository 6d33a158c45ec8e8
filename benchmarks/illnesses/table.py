"""The confusion table of `benchmarks.illnesses`: what was made against what was found."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.illnesses.cases import BY_NAME
from eval.diagnosis.evidence import Evidence
from eval.diagnosis.rank import diagnose

HEALTHY = "healthy"
ORDER = (
    HEALTHY,
    "negatives_too_easy",
    "negatives_too_hard_or_false",
    "temperature_too_soft",
    "temperature_too_sharp",
    "capacity_plateau",
    "overfitting",
    "learning_rate_too_high",
    "collapse",
    "forgetting",
    "popularity_collapse",
    "narrow_results",
    "synthetic_drift",
    "metadata_leakage",
    "low_hit_rate",
)
SHORT = {name: name.removeprefix("negatives_").removeprefix("temperature_").replace("_", " ") for name in ORDER}
Found = Mapping[tuple[str, int], Mapping[str, Sequence["Named"]]]


class Named(NamedTuple):
    """A finding, as the table needs it."""

    name: str
    severity: str


def name_arms(evidence: Evidence) -> dict[str, list[Named]]:
    """Arm -> its findings of weight, the weightiest first; `healthy` alone where there is none (notes have no weight)."""
    arms: dict[str, list[Named]] = {arm.name: [] for arm in evidence.arms}
    for finding in diagnose(evidence):
        if finding.severity != "note" and finding.name != HEALTHY:
            arms.setdefault(finding.arm, []).append(Named(finding.name, finding.severity))
    return {arm: found or [Named(HEALTHY, "note")] for arm, found in arms.items()}


def as_markdown(found: Found, machine: Mapping[str, Any], date: datetime.date) -> str:
    """The confusion table, then what was found per seed."""
    rows = _rows(found)
    columns = [*ORDER, *sorted({each.name for _, _, seeds in rows for names in seeds.values() for each in names} - set(ORDER))]
    head = ["made", "arm", *(SHORT.get(name, name.replace("_", " ")) for name in columns)]
    lines = [
        f"{date}, {machine['processor']}, {machine['cpus']} CPU(s), load {machine['load']}. A cell: in how many of the "
        "seeds the finding came first; behind +, in how many more it was found beside another one. Bold: what should come "
        "first.",
        "",
        _line(head),
        _line(["---"] * len(head)),
    ]
    for case, arm, seeds in rows:
        lines.append(_line([case, arm, *(_cell(name, seeds, wanted=BY_NAME[case].expected[arm]) for name in columns)]))
    right, total, healthy, well = _score(rows)
    lines += [
        "",
        f"Named first: {right} of {total} ill arms. No finding of weight: {well} of {healthy} healthy arms.",
        "",
        _line(["made", "how", "arm", "should be", "seed: found"]),
        _line(["---"] * 5),
    ]
    for case, arm, seeds in rows:
        told = "; ".join(f"{seed}: {', '.join(each.name for each in names)}" for seed, names in sorted(seeds.items()))
        lines.append(_line([case, BY_NAME[case].made, arm, BY_NAME[case].expected[arm], told]))
    return "\n".join(lines)


Rows = list[tuple[str, str, dict[int, Sequence[Named]]]]


def _rows(found: Found) -> Rows:
    """(case, arm, seed -> findings) of every arm that something is expected of, in the cases' order."""
    rows: Rows = []
    for name, case in BY_NAME.items():
        for arm in case.expected:
            seeds = {seed: arms[arm] for (other, seed), arms in found.items() if other == name and arm in arms}
            if seeds:
                rows.append((name, arm, seeds))
    return rows


def _cell(name: str, seeds: Mapping[int, Sequence[Named]], *, wanted: str) -> str:
    places = Counter(
        "first" if not place else "later" for names in seeds.values() for place, each in enumerate(names) if each.name == name
    )
    text = f"{places['first'] or ''}{'+' + str(places['later']) if places['later'] else ''}"
    if name != wanted:
        return text
    return f"**{text or 0} of {len(seeds)}**"


def _score(rows: Rows) -> tuple[int, int, int, int]:
    """(ill arms named first, ill arms, healthy arms, healthy arms without a finding), each counted once per seed."""
    right = total = healthy = well = 0
    for case, arm, seeds in rows:
        wanted = BY_NAME[case].expected[arm]
        first = sum(names[0].name == wanted for names in seeds.values())
        if wanted == HEALTHY:
            healthy, well = healthy + len(seeds), well + first
        else:
            total, right = total + len(seeds), right + first
    return right, total, healthy, well


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
