"""GPUs that torch cannot use are told before the first stage, with the cure."""

from __future__ import annotations

import pytest
import torch

from cluster.session.gpus import GpuState, cure, gpu_state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (GpuState("2.13.0+cu130", "13.0", "580.95.05", None), None),
        (GpuState("2.13.0+cpu", None, "580.95.05", "not compiled with CUDA"), ["torch 2.13.0+cpu", "CPU build", "install one"]),
        (GpuState("2.13.0+cu130", "13.0", None, "no driver"), ["no NVIDIA driver", "NVIDIA_VISIBLE_DEVICES=all"]),
        (
            GpuState("2.13.0+cu130", "13.0", "550.54.15", "too old"),
            ["CUDA 13.0", "driver 580 or newer", "is 550.54.15", "update"],
        ),
        (GpuState("2.13.0+cu130", "13.0", "580.95.05", "busy"), ["does not start with driver 580.95.05 (busy)"]),
    ],
)
def test_what_is_wrong_with_a_gpu_comes_with_its_cure(state: GpuState, words: list[str] | None) -> None:
    told = cure(state)
    assert (told is None) == (words is None)
    assert all(word in str(told) for word in words or [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="here torch can use a GPU")
def test_a_process_without_a_gpu_says_so() -> None:
    state = gpu_state()
    assert state.torch == torch.__version__
    assert state.problem
    assert cure(state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_works_needs_no_cure() -> None:
    assert cure(gpu_state()) is None
