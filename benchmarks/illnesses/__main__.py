"""Makes each illness by really training small models, and looks whether the diagnosis names it.

    python -m benchmarks.illnesses --work DIR [--cases NAME …] [--seeds 0 1 2] [--json FILE]
    python -m benchmarks.illnesses --work DIR --only train --cases NAME …     # one part of the work; figures stay in DIR

A case (`benchmarks.illnesses.cases`) is a whole run in this process: the demo's catalogue with something done to it, a model,
a warm-up, mined rounds and, in some, an arm of random negatives. What it leaves is `Evidence`, as `jobs.finished.evidence`
reads it from a run; it lies in DIR and is not made again while the case is the same, so rules can be tuned without training.
One thread.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.illnesses.case import Case
from benchmarks.illnesses.cases import BY_NAME, CASES
from benchmarks.illnesses.kept import read_evidence, write_evidence
from benchmarks.illnesses.table import Named, as_markdown, name_arms
from benchmarks.shared.machine import describe_machine
from eval.diagnosis.evidence import Evidence


def place_of(work: Path, case: Case, seed: int) -> Path:
    """Where the evidence of a case and seed lies; a case that is made otherwise has another place."""
    made = repr(replace(case, made="", expected={}, held_out=False))
    name = "".join(letter if letter.isalnum() else "-" for letter in case.name)
    return work / f"{name}.{seed}.{hashlib.sha256(made.encode()).hexdigest()[:8]}.json"


def make(work: Path, case: Case, seed: int) -> None:
    """Train a case, unless that is done."""
    path = place_of(work, case, seed)
    if path.exists():
        return
    from benchmarks.illnesses.training import Run

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hardmine-illness-") as folder:
        os.environ["HARDMINE_CACHE"] = f"{folder}/cache"  # where a training fetches the model that it starts from
        evidence = Run(case, seed, Path(folder)).evidence()
    seconds = time.monotonic() - started
    write_evidence(path, evidence, case=case.name, seed=seed, seconds=seconds)
    print(f"{case.name}, seed {seed}: {seconds:.0f} s", flush=True)


def start_one_rank() -> None:
    """A group of this process alone, one thread."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]


def judge(work: Path, case: Case, seed: int) -> dict[str, list[Named]]:
    """Arm -> what the diagnosis finds there, the weightiest first."""
    return name_arms(read_evidence(place_of(work, case, seed)))


def read(work: Path, name: str, seed: int) -> Evidence:
    """The evidence of a case that was trained."""
    return read_evidence(place_of(work, BY_NAME[name], seed))


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where evidence is kept")
    parser.add_argument("--cases", nargs="*", choices=list(BY_NAME), metavar="NAME")
    parser.add_argument("--held-out", action="store_true", help="without --cases: those that no threshold was settled on")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", choices=["train", "judge"], help="train: print no table; judge: train nothing")
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    options = parser.parse_args()
    options.cases = options.cases or [case.name for case in CASES if case.held_out == options.held_out]
    if options.only != "judge":
        start_one_rank()
        for seed in options.seeds:
            for name in options.cases:
                make(options.work, BY_NAME[name], seed)
    if options.only == "train":
        return
    found = {
        (name, seed): judge(options.work, BY_NAME[name], seed)
        for name in options.cases
        for seed in options.seeds
        if place_of(options.work, BY_NAME[name], seed).exists()
    }
    print(as_markdown(found, describe_machine(), datetime.date.today()))
    if options.json:
        options.json.write_text(
            json.dumps(
                [
                    {
                        "case": name,
                        "seed": seed,
                        "found": {arm: [each._asdict() for each in names] for arm, names in arms.items()},
                    }
                    for (name, seed), arms in found.items()
                ],
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
