"""What each correction gains, on simulated users whose taste is known: `python -m benchmarks.flywheel [--case ipw]`.

Cases:
    raw clicks    whatever was clicked is relevant, what was shown and never clicked is not
    pairs         `hardmine pairs` with its defaults
    without …     the same without one correction
    ipw           clipped inverse propensity instead of COEC

Each for users who click by position (PBM) and who read from the top and stop (cascade). Split by text, so that all labels count.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.flywheel.compare import Agreement, agreement, raw_clicks, read_pairs
from benchmarks.flywheel.simulate import make_log, make_truth, write_ubi
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSettings
from cluster.session.session import ray_session
from jobs.pairs.make import make_pairs
from jobs.pairs.settings import load_settings

COLUMNS = ("users", "labels", "relevant", "precision", "recall", "irrelevant", "right", "τ")
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


def measure(queries: int, texts: int, seed: int, chosen: list[str]) -> None:
    """Print a row for each model of clicks and each case."""
    truth = make_truth(texts, 3000, seed)
    for model in ("pbm", "cascade"):
        log = make_log(truth, queries, model=model, seed=seed + 1)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_ubi(truth, log, folder / "log")
            show(model, "raw clicks", agreement(raw_clicks(truth, log), truth, log))
            for case in chosen:
                to = folder / case.replace(" ", "-")
                settings = load_settings(None, ("splits.by=text", *CASES[case]))
                make_pairs([str(folder / "log")], str(to), settings, progress=Progress(quiet=True))
                show(model, case, agreement(read_pairs(to), truth, log))


def show(users: str, case: str, got: Agreement) -> None:
    """One line of the table in docs/logs.md."""
    cells = [users, case, f"{got.relevant:,}", f"{got.precision:.3f}", f"{got.recall:.3f}"]
    cells += [f"{got.irrelevant:,}", f"{got.irrelevant_precision:.3f}", f"{got.tau:.3f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", action="append", choices=list(CASES))
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |")
    with ray_session(ClusterSettings(cpus=2)):
        measure(options.queries, options.texts, options.seed, options.case or list(CASES))


if __name__ == "__main__":
    main()
