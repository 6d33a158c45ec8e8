"""What each correction gains, on simulated users whose taste is known: `python -m benchmarks.flywheel [--queries 40000]`.

Cases:
    raw clicks    whatever was clicked is relevant, what was shown and never clicked is not
    pairs         `hardmine pairs` with its defaults
    without …     the same without one correction
    ipw           clipped inverse propensity instead of COEC

Each for users who click by position (PBM) and who read from the top and stop (cascade). Split by text, so that all labels count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.flywheel.compare import agreement, raw_clicks, read_pairs
from benchmarks.flywheel.simulate import make_log, make_truth, write_ubi
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSettings
from cluster.session.session import ray_session
from jobs.pairs.make import make_pairs
from jobs.pairs.settings import load_settings

CASES: dict[str, tuple[str, ...]] = {
    "pairs": (),
    "without position": ("bias.position=off",),
    "ipw": ("bias.position=ipw",),
    "without prior": ("bias.prior=0.001",),
    "without bots": ("bias.bot_queries=0",),
    "without popularity": ("bias.popularity_cap=1.0",),
    "without dwell and quick return": ("signals.dwell_s=86400.0", "signals.weights.quick_return=0.0"),
    "without skipped": ("signals.weights.skipped=0.0",),
}


def rows(queries: int, texts: int, seed: int, chosen: list[str]) -> list[dict[str, Any]]:
    """A row for each model of clicks and each case."""
    result = []
    truth = make_truth(texts, 3000, seed)
    for model in ("pbm", "cascade"):
        log = make_log(truth, queries, model=model, seed=seed + 1)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_ubi(truth, log, folder / "log")
            result.append({"users": model, "case": "raw clicks"} | asdict(agreement(raw_clicks(truth, log), truth, log)))
            for case in chosen:
                settings = load_settings(None, ("splits.by=text", *CASES[case]))
                to = folder / case.replace(" ", "-")
                make_pairs([str(folder / "log")], str(to), settings, progress=Progress(quiet=True))
                result.append({"users": model, "case": case} | asdict(agreement(read_pairs(to), truth, log)))
                show(result[-1])
    return result


def show(row: dict[str, Any]) -> None:
    """One line of the table in docs/logs.md."""
    cells = [row["users"], row["case"], f"{row['relevant']:,}", f"{row['precision']:.3f}", f"{row['recall']:.3f}"]
    print(
        "| " + " | ".join([*cells, f"{row['irrelevant']:,}", f"{row['irrelevant_precision']:.3f}", f"{row['tau']:.3f}"]) + " |",
        flush=True,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ray_session(ClusterSettings(cpus=2)):
        table = rows(options.queries, options.texts, options.seed, options.case or list(CASES))
    if options.json:
        print(json.dumps(table))
    else:
        for row in table:
            show(row)


if __name__ == "__main__":
    main()
