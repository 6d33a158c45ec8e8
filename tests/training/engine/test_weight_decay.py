"""What weight decay pulls: matrices by (1 - rate × decay) a step, and with them an adapter back to the vectors it starts from."""

from __future__ import annotations

import numpy as np
import torch

from training.encoders.adapter import AdapterEncoder
from training.encoders.tokens.features import Vectors
from training.engine.engine import parameter_groups

RATE, DECAY, STEPS = 0.01, 10.0, 150


def test_an_adapter_decays_to_its_base_vectors_while_biases_and_norms_stay() -> None:
    torch.manual_seed(0)
    start, moved = AdapterEncoder(16, 24), AdapterEncoder(16, 24)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
        moved.down.bias.zero_()
        moved.norm.load_state_dict(start.norm.state_dict())
    before = {name: value.clone() for name, value in moved.state_dict().items()}
    vectors = Vectors(np.random.default_rng(1).normal(size=(30, 16)).astype(np.float32))
    far = np.abs(moved.encode(vectors) - start.encode(vectors)).max()
    optimizer = torch.optim.AdamW(parameter_groups(moved, DECAY), lr=RATE)
    for _ in range(STEPS):
        for parameter in moved.parameters():
            parameter.grad = torch.zeros_like(parameter)  # nothing is learned
        optimizer.step()
    for name, value in moved.state_dict().items():
        want = before[name] * ((1 - RATE * DECAY) ** STEPS if value.ndim > 1 else 1.0)
        torch.testing.assert_close(value, want, rtol=1e-4, atol=1e-9)
    assert far > 0.1
    np.testing.assert_allclose(moved.encode(vectors), start.encode(vectors), atol=1e-5)
