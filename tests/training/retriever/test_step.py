"""A step keeps a device busy: the host does not wait for it before the backward pass, and once after it.

Tensors on torch's "meta" device have no values, so whatever reads one (a number, a size that depends on values, a copy to the
host) raises: that is where a GPU would be waited for.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.objective.test_objective import CASES, EXAMPLES, TABLES, D, N
from training.encoders.adapter import AdapterEncoder
from training.engine.engine import Place
from training.feed.batches import BatchPlan
from training.feed.feed import Feed
from training.objective.objective import Objective
from training.retriever.step import train_step
from training.settings import TrainingSettings

META = torch.device("meta")


class Engine:
    """What a step needs of DeepSpeed's engine, without its optimizer."""

    def __init__(self, module: AdapterEncoder) -> None:
        self.module, self.backward_passes = module, 0

    def __call__(self, inputs: dict[str, Tensor]) -> Any:
        return self.module(inputs)

    def zero_optimization_stage(self) -> int:
        return 0

    def set_gradient_accumulation_boundary(self, boundary: bool) -> None:
        assert boundary in (True, False)

    def backward(self, loss: Tensor) -> None:
        self.backward_passes += 1
        loss.backward()


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_nothing_waits_for_the_device_before_all_of_the_backward_pass(
    name: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no such device, and waits for none
    settings = TrainingSettings(temperature=0.07, grad_cache=cached, **CASES[name])
    module = AdapterEncoder(D, 8)
    feed = Feed(
        BatchPlan(EXAMPLES, N, 8, 3, 2, 7, 0, 1), TABLES, module, settings, budget_tokens=16, device="cpu", equal_packs=False
    )
    step = feed.prepare(1, 2)
    feed.close()
    assert len(step.packs) > 1
    engine, place = Engine(module.to(META)), Place(0, 1, META, bfloat16=False)
    objective = Objective(settings, TABLES, rank=0, device=META)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor") as error:
        train_step(engine, objective, step, place, temperature=0.07, cached=cached, boundary=True)
    assert error.traceback[-1].frame.code.name == "train_step", "in nothing that it calls"
    assert engine.backward_passes == (len(step.packs) if cached else 1)
