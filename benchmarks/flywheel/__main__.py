"""What each correction gains, on simulated users whose taste is known: `python -m benchmarks.flywheel [--case ipw]`.

Cases:
    raw clicks    whatever was clicked is relevant, what was shown and never clicked is not
    pairs         `hardmine pairs` with its defaults
    without …     the same without one correction
    ipw           clipped inverse propensity instead of COEC

Each for users who click by position (PBM) and who read from the top and stop (cascade). Nothing is held out, so that all labels
count. The tasks run in this process, where a rule that has no setting can be changed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from benchmarks.flywheel.compare import Agreement, agreement, raw_clicks, read_pairs
from benchmarks.flywheel.simulate import make_log, make_truth, write_ubi
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSettings, ClusterSize
from cluster.storage.store import Store
from jobs.pairs import make, work
from jobs.pairs.labels import evidence
from jobs.pairs.labels import stage as labels
from jobs.pairs.make import make_pairs
from jobs.pairs.settings import load_settings
from jobs.pairs.tasks import Task, committed

COLUMNS = ("users", "labels", "relevant", "precision", "recall", "irrelevant", "right", "τ")
RULES: dict[str, tuple[ModuleType, str, float]] = {
    "without prior": (evidence, "PRIOR", 0.001),
    "without popularity": (labels, "POPULAR_SHARE", 1.0),
}
"""Case -> a rule that it changes."""
CASES: dict[str, tuple[str, ...]] = {
    "pairs": (),
    "without position": ("position_bias=off",),
    "ipw": ("position_bias=ipw",),
    "without prior": (),
    "without bots": ("bot_queries=0",),
    "without popularity": (),
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
                settings = load_settings(None, ("held_out=0.0", *CASES[case]))
                with patch.object(*RULES[case]) if case in RULES else nullcontext():
                    make_pairs([str(folder / "log")], str(to), settings, progress=Progress(quiet=True))
                show(model, case, agreement(read_pairs(to), truth, log))


def run_here(store: Store, folder: str, task: Task, inputs: Sequence[Any], **_: Any) -> list[dict[str, Any]]:
    """The tasks, one after another."""
    return [committed(task, store, folder, number, value) for number, value in enumerate(inputs)]


@contextmanager
def no_ray(_: ClusterSettings) -> Iterator[ClusterSize]:
    """This process only."""
    yield ClusterSize(nodes=1, cpus=1, gpus=0)


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
    with patch.object(work, "run_tasks", run_here), patch.object(make, "ray_session", no_ray):
        measure(options.queries, options.texts, options.seed, options.case or list(CASES))


if __name__ == "__main__":
    main()
