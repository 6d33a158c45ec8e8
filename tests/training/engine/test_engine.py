"""DeepSpeed on two gloo ranks: every ZeRO stage, precision and offload makes the update that plain torch makes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[3]
Report = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What rank 0 of one launch wrote."""
    folder = tmp_path_factory.mktemp("engine")
    worker = str(Path(__file__).with_name("engine_worker.py"))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, worker, str(rank), str(folder)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return json.loads((folder / "report.json").read_text())


OVERLAPPED = ["overlapped-1", "overlapped-2", "overlapped-3"]


@pytest.mark.parametrize("label", ["zero-0", "zero-1", "zero-2", "zero-3", "own", "recomputed", *OVERLAPPED])
def test_every_zero_stage_with_the_fused_adamw_updates_as_plain_torch(report: Report, label: str) -> None:
    assert report[label]["furthest"] < 1e-6
    assert report[label]["vectors"] < 1e-5
    assert report[label]["moved"] > 0.01, "too small an update to tell right from wrong"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_several_backward_passes_with_the_optimizer_on_the_host_make_the_same_update(report: Report, stage: int) -> None:
    # the sums have another order; a chunk that gets lost is three orders of magnitude above
    assert report[f"offload-{stage}"]["furthest"] < 5e-6


@pytest.mark.parametrize("label", ["bfloat16-0", "bfloat16-1", "bfloat16-3", "float16-1", "float16-3"])
def test_lower_precision_updates_float32_weights_in_the_same_direction(report: Report, label: str) -> None:
    assert report[label]["distance"] < (0.1 if label.startswith("b") else 0.02)
    assert report[label]["skipped"] == 0


@pytest.mark.parametrize("label", ["zero-1", "bfloat16-0", "bfloat16-1", "bfloat16-3", "float16-1", "float16-3", "lora-bfloat16"])
def test_the_optimizer_starts_from_the_float32_weights_of_the_model(report: Report, label: str) -> None:
    assert report[label]["start_moved"] == 0.0


def test_without_zero_the_first_steps_in_bfloat16_are_as_long_as_with_it(report: Report) -> None:
    assert report["bfloat16-0"]["distance"] == pytest.approx(report["bfloat16-1"]["distance"], rel=0.2)


def test_float16_where_the_processor_has_none_is_a_config_error(report: Report) -> None:
    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        assert "error" not in report["float16-refused"]
    else:
        assert report["float16-refused"]["error"].startswith('ConfigError: training.precision = "float16": DeepSpeed has')


@pytest.mark.parametrize("label", ["lora-1", "lora-3", "lora-recomputed"])
def test_only_the_additions_are_trained_and_as_plain_torch_trains_them(report: Report, label: str) -> None:
    run = report[label]
    assert all("lora_" in name for name in run["trained_names"])
    assert run["furthest"] < 1e-6
    trained, everything = run["trained"]
    assert run["trained_in_engine"] == [trained, everything]
    assert 0 < trained < 0.2 * everything


@pytest.mark.parametrize(("label", "tolerance"), [("lora-1", 1e-5), ("lora-3", 1e-5), ("lora-bfloat16", 2e-3)])
def test_the_saved_model_is_a_plain_one_with_the_vectors_of_the_unmerged(report: Report, label: str, tolerance: float) -> None:
    run = report[label]
    assert run["names"] == report["zero-1"]["names"]
    assert run["vectors"] < tolerance < run["moved"]


@pytest.mark.parametrize(
    "label",
    [
        "offload-1",
        "offload-2",
        "offload-3",
        "bfloat16-0",
        "bfloat16-1",
        "bfloat16-3",
        "float16-1",
        "float16-3",
        "own-bfloat16",
        "lora-bfloat16",
    ],
)
def test_a_run_from_a_checkpoint_ends_where_the_undisturbed_one_does(report: Report, label: str) -> None:
    assert report[label]["resumed"] == 0.0
    assert report[label]["resumed_from_one"] == 0.0, "saved by another number of ranks"


def test_the_users_own_keys_reach_deepspeed(report: Report) -> None:
    assert report["own"]["bucket"] == 12_345
    assert report["zero-1"]["bucket"] == 50_000_000


def test_what_deepspeed_itself_refuses_in_the_users_file_is_a_config_error(report: Report) -> None:
    error = report["own-refused"]["error"]
    assert error.startswith("ConfigError: DeepSpeed refuses the file of training.deepspeed")
    assert "reduce_bucket_size" in error
    assert "\n" not in error
