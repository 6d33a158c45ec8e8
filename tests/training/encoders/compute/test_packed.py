"""Packed linear layers: the same product, in place, wherever a plain linear layer was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from training.encoders.compute.packed import PackedLinear, cpu_has_bfloat16, pack_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


class Tail(nn.Linear):
    """A linear layer that does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1.0


def network() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.LayerNorm(40), nn.Linear(40, 7, bias=False))
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), inner, Tail(7, 5)).eval()


@pytest.mark.parametrize("shape", [(24,), (1, 24), (300, 24), (4, 9, 24)])
def test_the_product_is_that_of_the_plain_layer(shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(24, 40), torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(layer, torch.float32)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_all_plain_layers_are_replaced_and_no_others() -> None:
    plain, packed = network(), network()
    assert pack_linears(packed) == 2
    assert [type(module) for module in packed.modules() if isinstance(module, (nn.Linear, PackedLinear))] == [
        PackedLinear,
        PackedLinear,
        Tail,
    ]
    x = torch.randn(3, 11, 24)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)


def test_layers_that_hand_their_weights_to_kernels_are_left_alone() -> None:
    plain = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 3)).eval()
    packed = copy.deepcopy(plain)
    assert pack_linears(packed) == 1
    x = torch.randn(2, 5, 16)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 instructions")
def test_bfloat16_rounds_what_it_multiplies_and_nothing_more() -> None:
    layer, x = nn.Linear(64, 32), torch.randn(50, 64)
    with torch.inference_mode():
        got = PackedLinear(layer, torch.bfloat16)(x)
        exact = x.bfloat16().double() @ layer.weight.bfloat16().double().T + layer.bias.bfloat16().double()
    assert got.dtype == torch.bfloat16
    # products are summed in float32, only the result is rounded: half a unit in the last of 8 bits
    torch.testing.assert_close(got.double(), exact, atol=1e-4, rtol=2**-8)


def test_models_may_ask_for_the_dtype_of_a_packed_weight() -> None:
    packed = nn.Sequential(nn.Linear(8, 8))
    pack_linears(packed)
    assert packed[0].weight.dtype == torch.float32  # T5 does
    assert (packed[0].in_features, packed[0].out_features) == (8, 8)
    assert not list(packed.parameters())
