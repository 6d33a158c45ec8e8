"""The training loop with DeepSpeed on two gloo ranks: equal to one rank, to itself after a kill, careful in failure."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.ranks import run_ranks

pytestmark = pytest.mark.cluster

SHARED_MEMORY = Path("/dev/shm")
Report = dict[str, dict[str, Any]]


def shared_memory_files() -> set[str]:
    return {path.name for path in SHARED_MEMORY.glob("deepspeed_*")} if SHARED_MEMORY.is_dir() else set()


def launch(world: int, folder: Path) -> tuple[Report, str]:
    """Run all scenarios of a world size; (rank 0's report, what all ranks printed)."""
    printed = run_ranks(Path(__file__).with_name("loop_worker.py"), world, folder)
    return json.loads((folder / f"report-{world}.json").read_text()), printed


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both launches; the second takes over the first one's store."""
    folder = tmp_path_factory.mktemp("loop")
    before = shared_memory_files()
    two, printed = launch(2, folder)
    one, printed_too = launch(1, folder)
    return {"two": two, "one": one, "printed": printed + printed_too, "folder": folder, "left": shared_memory_files() - before}


@pytest.fixture(scope="module")
def two(launched: dict[str, Any]) -> Report:
    return launched["two"]


@pytest.fixture(scope="module")
def one(launched: dict[str, Any]) -> Report:
    return launched["one"]


def losses(run: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in run["lines"]]


def column(run: dict[str, Any], name: str) -> list[float]:
    return [line[name] for line in run["lines"]]


def distance(got: dict[str, Any], want: dict[str, Any]) -> float:
    """How far apart two runs' weights ended, as a share of how far they moved."""
    moved = np.array(want["moved"])
    return float(np.linalg.norm(np.array(got["end"]) - np.array(want["end"])) / np.linalg.norm(moved))


@pytest.mark.parametrize("kind", ["static", "adapter", "dense", "mixed"])
def test_two_ranks_train_as_one_rank_with_the_joined_batch(two: Report, one: Report, kind: str) -> None:
    got, want = two[kind], one[kind]
    assert losses(got)[:20] == pytest.approx(losses(want)[:20], rel=1e-4)
    assert distance(got, want) < 1e-2
    for name in ("gradient_norm", "negatives_per_query", "positive_probability"):
        assert column(got, name)[:20] == pytest.approx(column(want, name)[:20], rel=1e-3, abs=1e-6), name
    assert got["result"]["validation"] == want["result"]["validation"]
    assert min(column(got, "gradient_share_hard")[:20]) >= 0 < max(column(got, "gradient_share_hard")[:20])
    assert max(column(got, "gradient_share_random")[:20]) > 0


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_trains_the_same(two: Report, one: Report, stage: int) -> None:
    got = two[f"zero-{stage}"]
    assert losses(got)[:20] == pytest.approx(losses(one["bert"])[:20], rel=1e-4)
    assert distance(got, one["bert"]) < 1e-2
    assert got["result"]["best"]["epoch"] == one["bert"]["result"]["best"]["epoch"]


def test_a_generic_pipeline_trains_the_same_with_sharded_weights_and_unused_ones(two: Report) -> None:
    assert losses(two["dense-zero-3"])[:20] == pytest.approx(losses(two["dense"])[:20], rel=1e-4)
    assert distance(two["dense-zero-3"], two["dense"]) < 1e-2


@pytest.mark.parametrize("name", ["static", "adapter", "dense", "zero-3"])
def test_training_lowers_the_loss(two: Report, name: str) -> None:
    found = losses(two[name])
    assert np.mean(found[len(found) // 2 :]) < np.mean(found[: len(found) // 2]), found


@pytest.mark.parametrize("name", ["static", "dense", "zero-1", "zero-3"])
def test_the_kept_folder_has_the_recall_that_was_recorded(two: Report, name: str) -> None:
    best = two[name]["result"]["best"]
    assert best["recall"] == pytest.approx(two[name]["recall_of_best"], abs=1e-9)
    assert best["recall"] == max(two[name]["result"]["validation"])


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(two: Report, stage: int) -> None:
    killed, resumed, undisturbed = two[f"killed-{stage}"], two[f"resumed-{stage}"], two[f"zero-{stage}"]
    assert killed["error"].startswith("KilledError")
    assert len(killed["lines"]) == 12
    assert resumed["started_at"] == 1
    assert losses(resumed) == losses(undisturbed)
    np.testing.assert_allclose(resumed["end"], undisturbed["end"], atol=1e-6)
    for name in ("validation", "train_loss", "steps", "epochs", "examples"):
        assert resumed["result"][name] == undisturbed["result"][name], name


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_run_killed_on_two_ranks_goes_on_with_one_as_if_nothing_had_happened(two: Report, one: Report, stage: int) -> None:
    got, want = one[f"fewer-{stage}"], two[f"zero-{stage}"]
    assert two[f"fewer-{stage}"]["error"].startswith("KilledError")
    assert got["started_at"] == 1
    assert losses(got) == pytest.approx(losses(want), rel=1e-4)
    assert distance(got, want | {"moved": got["moved"]}) < 1e-2
    assert got["result"]["validation"] == want["result"]["validation"]
    assert got["result"]["joined_batch"] == 8
    assert any(
        "goes on with 1 rank(s) from step 12, which 2 saved; a step still takes 8" in note for note in got["result"]["notes"]
    )


def test_ranks_that_cannot_share_a_batch_evenly_train_as_one_rank(two: Report, one: Report) -> None:
    assert losses(two["uneven"])[:20] == pytest.approx(losses(one["uneven"])[:20], rel=1e-4)
    assert distance(two["uneven"], one["uneven"]) < 1e-2
    assert two["uneven"]["result"]["joined_batch"] == 7


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_as_if_nothing_had_happened(two: Report) -> None:
    """With dropout, GradCache and a temperature that is learned: all of its state is in the checkpoint of step 5."""
    assert "at step 8" in two["middle-killed"]["error"]
    assert two["middle-resumed"]["started_at_step"] == 5
    assert losses(two["middle-resumed"]) == pytest.approx(losses(two["middle"]), rel=1e-5)
    assert column(two["middle-resumed"], "temperature") == pytest.approx(column(two["middle"], "temperature"), rel=1e-6)
    assert len(set(column(two["middle"], "temperature"))) > 10
    assert two["middle-resumed"]["result"]["validation"] == two["middle"]["result"]["validation"]
    assert distance(two["middle-resumed"], two["middle"]) < 1e-3


def test_a_run_with_a_set_mixed_in_goes_on_after_a_kill_as_if_nothing_had_happened(two: Report) -> None:
    got, want = two["mixed-resumed"], two["mixed"]
    assert "at step 12" in two["mixed-killed"]["error"]
    assert got["started_at_step"] == 10
    assert want["result"]["steps"] == 2 * (12 + 5), "96 queries of its own in steps of 8, and 30 % of all steps besides"
    assert losses(got) == pytest.approx(losses(want), rel=1e-5)
    assert distance(got, want) < 1e-3
    assert want["result"]["items_loaded"] == 2 * two["adapter"]["result"]["items_loaded"]
    mined = [share > 0 for share in column(want, "gradient_share_hard")]
    assert mined.count(False) >= 10, "nothing is mined for the second set"


@pytest.mark.parametrize("stage", [1, 3])
def test_grad_cache_with_dropout_trains_as_a_step_that_keeps_its_activations(two: Report, stage: int) -> None:
    got, want = two[f"dropout-{stage}-cached"], two["dropout-1-kept"]
    assert losses(got) == pytest.approx(losses(want), rel=1e-3)
    assert distance(got, want) < 1e-2
    assert column(got, "gradient_norm") == pytest.approx(column(want, "gradient_norm"), rel=1e-2)


def test_a_tampered_engine_file_is_not_loaded(two: Report) -> None:
    assert two["tampered"]["error"].startswith("DamagedObject")
    assert "SHA-256" in two["tampered"]["error"]
    assert "started_at" not in two["tampered"]


@pytest.mark.parametrize("name", ["nan-rate", "huge-rate"])
def test_a_diverging_run_names_its_step(two: Report, name: str) -> None:
    assert two[name]["error"].startswith("TrainingDiverged")
    assert "at step 2 of round 0" in two[name]["error"]
    assert not [path for path in two[name]["files"] if "/model-" in path], "a model of a diverged run was kept"


@pytest.mark.parametrize(("kind", "exact"), [("static", "static"), ("bert", "zero-1"), ("adapter", "adapter")])
def test_bfloat16_trains_close_to_float32(two: Report, kind: str, exact: str) -> None:
    got = losses(two[f"bf16-{kind}"])
    assert got == pytest.approx(losses(two[exact]), rel=0.1)
    assert got != losses(two[exact])


@pytest.mark.parametrize("name", ["bf16-static", "bf16-adapter", "bf16-zero-3"])
def test_bfloat16_keeps_the_optimizer_s_float32_weights(two: Report, name: str) -> None:
    end = torch.tensor(two[name]["end"], dtype=torch.float32)
    assert (end != end.bfloat16().float()).float().mean() > 0.5, "weights rounded to bfloat16 were exported"


def test_accumulation_makes_half_the_optimizer_steps(two: Report) -> None:
    run = two["accumulation"]
    assert run["result"]["steps"] == 12
    assert column(run, "step") == [1 + index // 2 for index in range(24)]
    rates = column(run, "learning_rate")
    assert rates[0::2] == rates[1::2]
    assert losses(run)[0] == losses(two["adapter"])[0]


def test_the_learning_rate_moves_with_every_step_and_moves_the_weights(two: Report) -> None:
    rates = column(two["adapter"], "learning_rate")
    assert rates[0] == pytest.approx(2.5e-4), "the first of two warm-up steps"
    assert rates[1] == pytest.approx(5e-4)
    assert all(later < earlier for earlier, later in pairwise(rates[1:]))
    assert 0 < rates[-1] < 1e-5
    # AdamW moves a weight by the learning rate at most (and a little, for its first steps)
    assert 0.1 * sum(rates) < np.abs(two["adapter"]["moved"]).max() < 1.5 * sum(rates)


@pytest.mark.parametrize("stage", [0, 2])
def test_gradients_are_clipped(two: Report, stage: int) -> None:
    # at a norm of 1e-10 every gradient is far below AdamW's epsilon of 1e-8, so that hardly anything moves
    clipped = two[f"clipped-{stage}"]
    assert clipped["clipping"] == 1e-10
    assert np.linalg.norm(clipped["moved"]) < 0.05 * np.linalg.norm(two["adapter"]["moved"])


def test_the_gradient_norm_is_logged_or_left_open(two: Report) -> None:
    assert all(norm > 0 for norm in column(two["zero-2"], "gradient_norm"))
    assert column(two["zero-2"], "gradient_norm") == pytest.approx(column(two["zero-3"], "gradient_norm"), rel=1e-3)
    assert all(norm is None or norm > 0 for norm in column(two["zero-0"], "gradient_norm"))


def test_without_gathering_there_are_fewer_negatives(two: Report) -> None:
    local, gathered = np.mean(column(two["local"], "negatives_per_query")), np.mean(column(two["adapter"], "negatives_per_query"))
    assert local < 0.8 * gathered


def test_before_anything_is_mined_negatives_are_random(two: Report) -> None:
    assert set(column(two["warm-up"], "gradient_share_hard")) == {0.0}
    assert max(column(two["warm-up"], "gradient_share_random")) > 0


def test_max_steps_ends_the_round(two: Report) -> None:
    assert two["few-steps"]["result"]["steps"] == 5
    assert len(two["few-steps"]["lines"]) == 5


def test_superseded_models_are_deleted_and_the_best_is_there(two: Report) -> None:
    run = two["long"]
    models = {path.split("/")[2] for path in run["files"] if "/model-" in path}
    best = run["result"]["best"]
    assert best["prefix"].split("/")[-1] in models
    assert len(models) <= 2
    assert set(best["model"]) <= set(run["files"])
    engines = {path.split("/")[3] for path in run["files"] if "/engine/step-" in path}
    assert len(engines) == 1


def test_more_accumulation_than_micro_steps_is_a_config_error(one: Report) -> None:
    assert one["too-few"]["error"].startswith("ConfigError")
    assert "12 micro-step(s)" in one["too-few"]["error"]


def test_without_dev_queries_training_runs_to_its_end_and_keeps_the_last_model(one: Report) -> None:
    assert one["no-dev"]["result"]["epochs"] == 4
    assert one["no-dev"]["result"]["best"]["epoch"] == 4


def test_patience_stops_a_round_that_gets_no_better(one: Report) -> None:
    assert one["patience"]["result"]["epochs"] == 2
    assert one["patience"]["result"]["best"]["epoch"] == 2, "of equal ones the later"
    assert one["patience"]["result"]["notes"][-1] == ("No improvement in 1 epoch in a row (patience 1); the best epoch is kept.")
    assert one["no-policy"]["result"]["epochs"] == 3, "patience counts only where a policy was handed over"


def test_nothing_is_compiled_left_in_shared_memory_or_said(launched: dict[str, Any]) -> None:
    assert launched["left"] == set()
    assert not list((launched["folder"] / "extensions").glob("*"))
    noise = [
        word for word in ("DeepSpeed]", "[INFO]", "[WARNING]", "FutureWarning", "Loading weights") if word in launched["printed"]
    ]
    assert noise == [], launched["printed"][:3000]
