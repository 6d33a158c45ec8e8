"""Intervals and permutation tests against scipy's: `python -m benchmarks.decisions.statistics [--case interval]`.

Resamples of the paired differences of two generated runs: hit@10 (few distinct differences), recall@3 and
ndcg@10 (many). Both sides answer the same question with the same number of resamples on one core; they must agree, and
how far they are apart is printed in units of the interval's half width. The case "whole" is what an evaluation does: nine
metrics at once, interval, p and correction. docs/results.md quotes `--queries 5000 --resamples 10000`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.shared.command import Row, chosen_cases, compared, emit, make_parser
from benchmarks.shared.machine import paired
from eval.significance import compare, paired_bootstrap, paired_permutation_p

F64 = npt.NDArray[np.float64]
BATCH = 200
"""Resamples that scipy holds at once: without it, all 10,000 at 8 bytes for each query."""


def made_runs(queries: int, seed: int = 0) -> dict[str, tuple[F64, F64]]:
    """(values, baseline) of each metric: one relevant item in four queries, up to five in the others, a small gain."""
    rng = np.random.default_rng(seed)
    relevant = rng.integers(1, 6, size=queries)
    chance = rng.beta(1.2, 1.5, size=queries)
    runs: dict[str, tuple[F64, F64]] = {}
    before, after = (np.clip(chance + gain, 0, 1) for gain in (0.0, 0.02))
    runs["hit@10"] = tuple((rng.random(queries) < p).astype(np.float64) for p in (after, before))  # type: ignore[assignment]
    runs["recall@3"] = tuple(rng.binomial(relevant, p) / relevant for p in (after, before))  # type: ignore[assignment]
    runs["ndcg@10"] = tuple(np.clip(p + rng.normal(0, 0.1, queries), 0, 1) for p in (after, before))  # type: ignore[assignment]
    return runs


def scipy_interval(values: F64, baseline: F64, resamples: int) -> tuple[float, float]:
    """Ends of scipy's percentile interval."""
    from scipy.stats import bootstrap

    found = bootstrap(
        (values - baseline,),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        batch=BATCH,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def scipy_p(values: F64, baseline: F64, resamples: int) -> float:
    """p of scipy's paired permutation test."""
    from scipy.stats import permutation_test

    def statistic(x: F64, y: F64, axis: int) -> Any:
        return np.mean(x - y, axis=axis)

    return float(
        permutation_test(
            (values, baseline),
            statistic,
            permutation_type="samples",
            n_resamples=resamples,
            vectorized=True,
            batch=BATCH,
            rng=np.random.default_rng(0),
        ).pvalue
    )


def case_interval(queries: int, resamples: int, runs: int) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    for name, (values, baseline) in made_runs(queries).items():
        ours = paired_bootstrap(values, baseline, resamples=resamples)
        theirs = scipy_interval(values, baseline, resamples)
        apart = max(abs(ours.low - theirs[0]), abs(ours.high - theirs[1])) / ((ours.high - ours.low) / 2)
        row = _row(
            f"interval of {name}",
            runs,
            lambda v=values, b=baseline: paired_bootstrap(v, b, resamples=resamples),
            "scipy.stats.bootstrap",
            lambda v=values, b=baseline: scipy_interval(v, b, resamples),
        )
        rows.append(row | {"ends_apart": apart})
    return rows


def case_p(queries: int, resamples: int, runs: int) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    for name, (values, baseline) in made_runs(queries).items():
        p, other = paired_permutation_p(values, baseline, resamples=resamples), scipy_p(values, baseline, resamples)
        row = _row(
            f"p of {name}",
            runs,
            lambda v=values, b=baseline: paired_permutation_p(v, b, resamples=resamples),
            "scipy.stats.permutation_test",
            lambda v=values, b=baseline: scipy_p(v, b, resamples),
        )
        rows.append(row | {"p": p, "peer_p": other})
    return rows


def case_whole(queries: int, resamples: int, runs: int) -> list[Row]:
    """See the module."""
    nine = {f"{name} {number}": pair for name, pair in made_runs(queries).items() for number in range(3)}
    values, baseline = ({name: pair[side] for name, pair in nine.items()} for side in (0, 1))

    def scipy_all() -> None:
        for pair in nine.values():
            scipy_interval(*pair, resamples)
            scipy_p(*pair, resamples)

    return [_row("whole: nine metrics", runs, lambda: compare(values, baseline, resamples=resamples), "scipy", scipy_all)]


def _row(case: str, runs: int, ours: Callable[[], Any], peer: str, theirs: Callable[[], Any]) -> Row:
    took = paired({"ours": ours, "peer": theirs}, runs)
    return compared(case, took["ours"], peer, took["peer"])


CASES = {"interval": case_interval, "p": case_p, "whole": case_whole}


def main() -> None:
    """Run the cases."""
    parser = make_parser(__doc__, cases=CASES, runs=1)
    parser.add_argument("--queries", type=int, default=2000, help="of the generated runs (%(default)s)")
    parser.add_argument("--resamples", type=int, default=2000, help="%(default)s")
    given = parser.parse_args()
    rows = [row for name in chosen_cases(given) for row in CASES[name](given.queries, given.resamples, given.runs)]
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
