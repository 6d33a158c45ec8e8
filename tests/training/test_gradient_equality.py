"""Ranks with DeepSpeed give every weight the gradient that one process with the joined batch gives it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
WORLD = 2


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Case -> relative error of its gradient over all weights."""
    folder = tmp_path_factory.mktemp("equality")
    worker = str(Path(__file__).with_name("equality_worker.py"))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HARDMINE_CACHE": str(folder / "cache"),
        "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, worker, str(rank), str(WORLD), str(folder)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(outputs)
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_loss_cached_or_not_gathered_or_not_has_the_gradient_of_one_process(errors: dict[str, float], stage: int) -> None:
    found = {case: error for case, error in errors.items() if case.startswith(f"zero {stage} ·")}
    assert len(found) == 2 * (8 + 2) * 4  # accumulations × (losses, and the temperatures' own gradients) × cached × gathered
    assert {case: error for case, error in found.items() if not error < 1e-5} == {}
