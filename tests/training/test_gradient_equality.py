"""Ranks with DeepSpeed give every weight the gradient that one process with the joined batch gives it."""

import json
from pathlib import Path

import pytest

from tests.support.ranks import run_ranks

pytestmark = pytest.mark.cluster

WORLD = 2


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Case -> relative error of its gradient over all weights."""
    folder = tmp_path_factory.mktemp("equality")
    run_ranks(Path(__file__).with_name("equality_worker.py"), WORLD, folder)
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_loss_cached_or_not_gathered_or_not_has_the_gradient_of_one_process(errors: dict[str, float], stage: int) -> None:
    found = {case: error for case, error in errors.items() if case.startswith(f"zero {stage} ·")}
    assert len(found) == 2 * (8 + 2) * 4  # accumulations × (losses, and the temperatures' own gradients) × cached × gathered
    assert {case: error for case, error in found.items() if not error < 1e-5} == {}
