"""A step keeps a device busy: the host does not wait for it before the backward pass, and once after it.

Tensors on torch's "meta" device have no values, so whatever reads one (a number, a size that depends on values, a copy to the
host) raises: that is where a GPU would be waited for.
"""

from __future__ import annotations

from collections.abc import Callable
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
from training.retriever.step import StepFigures, train_step
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


def stepped(name: str, cached: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, Callable[[], StepFigures], int]:
    """(an engine on the meta device, a micro-step of it, its packs)."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no such device, and waits for none
    settings = TrainingSettings(temperature=0.07, grad_cache=cached, **CASES[name])
    module = AdapterEncoder(D, 8)
    feed = Feed(
        BatchPlan(EXAMPLES, N, 8, 3, 2, 7, 0, 1), TABLES, module, settings, budget_tokens=16, device="cpu", equal_packs=False
    )
    prepared = feed.prepare(1, 2)
    feed.close()
    assert len(prepared.packs) > 1
    engine, place = Engine(module.to(META)), Place(0, 1, META, bfloat16=False)
    objective = Objective(settings, TABLES, rank=0, device=META)

    def step() -> StepFigures:
        return train_step(engine, objective, prepared, place, temperature=0.07, cached=cached, boundary=True)

    return engine, step, len(prepared.packs)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_nothing_waits_for_the_device_before_all_of_the_backward_pass(
    name: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, step, packs = stepped(name, cached, monkeypatch)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor") as error:
        step()
    assert error.traceback[-1].frame.code.name == "train_step", "in nothing that it calls"
    assert engine.backward_passes == (packs if cached else 1)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_the_device_once(name: str, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, step, packs = stepped(name, cached, monkeypatch)
    values, waits = Tensor.tolist, []

    def read(tensor: Tensor) -> Any:
        if tensor.device != META:
            return values(tensor)
        waits.append(engine.backward_passes)
        return [1.0] * tensor.numel()

    monkeypatch.setattr(Tensor, "tolist", read)  # the one way in which a step may read; any other still raises
    assert step().figures["loss"] == 1.0
    assert waits == [packs if cached else 1], "once, after every backward pass"
