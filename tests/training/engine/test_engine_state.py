"""The engine's state as files: what is not whole or no safetensors is refused, and nothing in it runs. Equality: test_engine."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ArtifactError
from training.engine.engine import Place
from training.engine.engine_state import load_state, save_state

ALONE = Place(0, 1, torch.device("cpu"), False)


def trained() -> Any:
    """What DeepSpeed is without ZeRO in float32: a module and torch's own AdamW, two steps on."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
    return SimpleNamespace(module=module, optimizer=optimizer, zero_optimization_stage=lambda: 0)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_weights_moments_steps_and_buffers_come_back(tmp_path: Path) -> None:
    engine, file = trained(), tmp_path / "state"
    save_state(engine, ALONE, file)
    other = trained()
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.zero_()
    other.optimizer.state.clear()
    load_state(other, ALONE, [file])
    want_state = engine.module.state_dict()
    assert all(torch.equal(got, want_state[name]) for name, got in other.module.state_dict().items())
    for got, want in zip(other.module.parameters(), engine.module.parameters(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(other.optimizer.state[got][key], engine.optimizer.state[want][key])


def test_a_pickle_in_place_of_the_state_is_refused_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_bytes(pickle.dumps(Evil(tmp_path / "run")))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_state(trained(), ALONE, [file])
    torch.save({"0.weight": Evil(tmp_path / "run")}, file)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_state(trained(), ALONE, [file])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["gone", "short", "gap"])
def test_a_parameter_that_is_not_whole_is_named(change: str, tmp_path: Path) -> None:
    engine, file = trained(), tmp_path / "state"
    save_state(engine, ALONE, file)
    tensors = load_file(file)
    whole = tensors.pop("0.weight:weight:0")
    if change == "short":
        tensors["0.weight:weight:0"] = whole[:-1].clone()
    if change == "gap":
        tensors |= {"0.weight:weight:0": whole[:4].clone(), "0.weight:weight:5": whole[5:].clone()}
    save_file(tensors, file)
    with pytest.raises(ArtifactError, match=r"values of 0.weight \(weight\) from its start on, expected 12"):
        load_state(engine, ALONE, [file])
