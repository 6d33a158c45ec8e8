"""The re-ranker's training with DeepSpeed on two gloo ranks: equal to one rank, to itself after a kill, under every loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.ranks import run_ranks

pytestmark = pytest.mark.cluster

Report = dict[str, dict[str, Any]]


def launch(world: int, folder: Path) -> Report:
    """Run all scenarios of a world size; rank 0's report."""
    run_ranks(Path(__file__).with_name("rerank_worker.py"), world, folder, timeout_s=600.0)
    return json.loads((folder / f"report-{world}.json").read_text())


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, cross_encoder: Path) -> tuple[Report, Report]:
    """Both launches; the second takes over the first one's store."""
    folder = tmp_path_factory.mktemp("rerank")
    shutil.copytree(cross_encoder, folder / "cross-encoder")
    return launch(2, folder), launch(1, folder)


@pytest.fixture(scope="module")
def two(launched: tuple[Report, Report]) -> Report:
    return launched[0]


@pytest.fixture(scope="module")
def one(launched: tuple[Report, Report]) -> Report:
    return launched[1]


def losses(run: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in run["lines"]]


def distance(got: dict[str, Any], want: dict[str, Any]) -> float:
    """How far apart two runs' weights ended, as a share of how far they moved."""
    return float(np.linalg.norm(np.array(got["end"]) - np.array(want["end"])) / np.linalg.norm(want["moved"]))


def test_two_ranks_give_every_weight_the_gradient_of_plain_autograd(two: Report) -> None:
    errors = two["gradients"]
    assert len(errors) == 4 * 4 * 2  # ZeRO stages × losses × cached or kept
    assert {case: found for case, found in errors.items() if not found < 1e-5} == {}


@pytest.mark.parametrize("name", ["zero-1", "lambda", "listnet", "margin_mse", "lora", "late"])
def test_two_ranks_train_as_one_rank_with_the_joined_lists(two: Report, one: Report, name: str) -> None:
    got, want = two[name], one[name]
    assert losses(got) == pytest.approx(losses(want), rel=1e-3)
    assert distance(got, want) < 5e-2, "AdamW moves weights without gradient by rounding alone"
    for figure in ("gradient_norm", "first_relevant"):
        assert [line[figure] for line in got["lines"]] == pytest.approx([line[figure] for line in want["lines"]], rel=1e-2), (
            figure
        )
    assert got["result"]["validation"] == pytest.approx(want["result"]["validation"], abs=1e-6)


@pytest.mark.parametrize("name", ["zero-0", "zero-2", "zero-3", "cached"])
def test_every_zero_stage_and_a_cached_step_train_the_same(two: Report, name: str) -> None:
    assert losses(two[name]) == pytest.approx(losses(two["zero-1"]), rel=1e-3)
    assert distance(two[name], two["zero-1"]) < 5e-2


def test_late_interaction_trains_the_same_in_a_cached_step_of_zero_3(two: Report) -> None:
    assert losses(two["late-cached"]) == pytest.approx(losses(two["late"]), rel=1e-3)
    assert distance(two["late-cached"], two["late"]) < 5e-2


def test_a_killed_training_goes_on_as_if_nothing_had_happened(two: Report) -> None:
    assert "at step 6" in two["killed"]["error"]
    assert two["resumed"]["started_at_step"] == 4
    assert losses(two["resumed"]) == losses(two["whole"])
    assert two["resumed"]["end"] == two["whole"]["end"]
    assert two["resumed"]["result"]["validation"] == two["whole"]["result"]["validation"]


@pytest.mark.parametrize("name", ["zero-1", "lambda", "listnet", "margin_mse", "lora", "bfloat16", "late"])
def test_training_lowers_the_loss(two: Report, name: str) -> None:
    found = losses(two[name])
    assert np.mean(found[-4:]) < np.mean(found[:4]), found


def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(two: Report) -> None:
    assert losses(two["bfloat16"]) == pytest.approx(losses(two["zero-1"]), rel=0.1)
    assert losses(two["bfloat16"]) != losses(two["zero-1"])
    end = np.array(two["bfloat16"]["end"], np.float32)
    assert np.mean(end.view(np.uint32) & 0xFFFF != 0) > 0.5, "weights rounded to bfloat16 were exported"


@pytest.mark.parametrize(
    ("name", "activation"), [("zero-1", "Sigmoid"), ("lambda", "Identity"), ("lora", "Sigmoid"), ("late", None)]
)
def test_the_kept_folder_scores_as_sentence_transformers_scores_it(two: Report, name: str, activation: str | None) -> None:
    assert two[name]["ours"] == pytest.approx(two[name]["theirs"], abs=1e-5)
    assert two[name].get("activation") == activation


def test_the_best_epoch_by_ndcg_is_kept(two: Report) -> None:
    result = two["zero-1"]["result"]
    assert len(result["validation"]) == 2
    assert result["best"]["ndcg"] == max(result["validation"]) > 0


def test_a_diverging_training_names_the_setting(two: Report) -> None:
    error = two["wild"].get("error", "")
    assert error.startswith("TrainingDiverged")
    assert "lower reranker.learning_rate" in error


def test_without_mined_negatives_lists_are_filled_with_random_ones(one: Report) -> None:
    assert one["bare"]["result"]["best"]["epoch"] == 2, "nothing is validated: the last model is kept"
    assert np.mean([line["pairs"] for line in one["bare"]["lines"]]) > 0.7 * np.mean(
        [line["pairs"] for line in one["zero-1"]["lines"]]
    )


def test_margins_without_a_teacher_are_refused(one: Report) -> None:
    assert one["no-teacher"]["error"].startswith("ConfigError: reranker.loss")
