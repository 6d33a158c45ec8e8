"""Gathering over ranks: 2 and 3 gloo ranks equal one process with the joined batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.objective.gather import gather_rows, mean_over_ranks

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three ranks wrote; one launch for all tests, because starting torch is most of the time."""
    folder = tmp_path_factory.mktemp("gather")
    worker = str(Path(__file__).with_name("gather_worker.py"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, worker, str(rank), "3", str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(outputs)
    assert "FutureWarning" not in "".join(outputs)
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.cluster
@pytest.mark.parametrize("case", ["info_nce", "info_nce_weighted", "triplet", "triplet_weighted"])
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_equal_one_process_with_the_joined_batch(reports: list[dict[str, Any]], num_ranks: int, case: str) -> None:
    for report in reports[:num_ranks]:
        got = report[f"ranks_{num_ranks}"][case]
        assert got["got_loss"] == pytest.approx(got["want_loss"], rel=1e-9)
        assert got["gradient_error"] < 1e-9
        assert got["want_loss"] > 0.01, "the case is too easy to tell right from wrong"


@pytest.mark.cluster
def test_rows_of_all_ranks_arrive_in_order_and_gradients_come_back_summed(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert len(report["details"]) == 7
        assert all(report["details"].values()), report["details"]


@pytest.mark.cluster
def test_gather_outside_the_group_is_refused(reports: list[dict[str, Any]]) -> None:
    assert "rank 2 is not in the group" in reports[2]["outside_group"]


def test_one_process_is_the_identity_with_gradient() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(x) is x
    assert not mean_over_ranks(x).requires_grad
    torch.testing.assert_close(mean_over_ranks(x), x.detach())


def test_a_scalar_is_refused() -> None:
    with pytest.raises(ValueError, match="found a scalar"):
        gather_rows(torch.tensor(1.0))
