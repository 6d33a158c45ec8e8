"""Forward and backward passes of the encoder: packs of texts of similar length, with or without keeping activations.

N texts, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from cluster.tables.tables import I64
from training.encoders.tokens.features import Features
from training.encoders.tokens.packing import pack
from training.engine.engine import Place
from training.feed.feed import Pack
from training.objective.gather import gather_rows


class NotFiniteError(ArithmeticError):
    """The loss is NaN or infinite; the weights are as they were."""


class Pass:
    """One step's passes over its packs: `forward` gives the embeddings, `backward` takes their gradient.

    With `cached` (GradCache) nothing is kept between the two: the backward pass encodes each pack once more, with the same
    random state, and its activations are the only ones in memory. Otherwise the activations of all packs are kept and there
    is a single backward pass. Both give the same gradient.
    """

    def __init__(self, engine: Any, packs: list[Pack], place: Place, *, cached: bool) -> None:
        self._engine, self._packs, self._place, self._cached = engine, packs, place, cached
        self._outputs: list[Tensor] = []

    def forward(self) -> Tensor:
        """Embeddings [N, D] float32 of all texts, without gradient, in the order of the packs' places."""
        with torch.set_grad_enabled(not self._cached):
            outputs = [self._encode(each, inputs) for each, inputs in zip(self._packs, self._inputs(), strict=True)]
        self._outputs = [] if self._cached else outputs
        places = np.concatenate([each.places for each in self._packs])
        joined = torch.cat([output.detach()[: len(each.places)] for output, each in zip(outputs, self._packs, strict=True)])
        back = torch.empty(len(places), dtype=torch.int64)
        back[torch.from_numpy(places)] = torch.arange(len(places))
        return joined.float()[back.to(joined.device)]

    def backward(self, gradient_ND: Tensor, *, boundary: bool) -> None:
        """Give the weights the gradient that the embeddings have.

        Args:
            gradient_ND: float32, of the loss with respect to what `forward` returned.
            boundary: the optimizer steps after this micro-step. DeepSpeed counts backward passes as micro-steps, of which a
                cached step makes several: without being told it reduces gradients too often, and ZeRO 1 and 2 silently
                lose part of them.
        """
        if not self._cached:
            self._engine.set_gradient_accumulation_boundary(boundary)
            self._engine.backward(
                sum(
                    (self._surrogate(output, each, gradient_ND) for output, each in zip(self._outputs, self._packs, strict=True)),
                    start=0.0,
                )
            )
            self._outputs = []
            return
        for number, each in enumerate(self._packs):
            last = number + 1 == len(self._packs)
            self._engine.set_gradient_accumulation_boundary(boundary and last)
            self._engine.backward(self._surrogate(self._encode(each, each.inputs), each, gradient_ND))

    def _inputs(self) -> list[dict[str, Tensor]]:
        """What each pack gives the model. Where activations are kept, all tokens are looked up at once: the gradient of a
        lookup is as large as its table, and there is then one of it instead of one per pack."""
        table = self._engine.module.token_table
        if self._cached or table is None or self._engine.zero_optimization_stage() == 3:  # where the table is cut over ranks
            return [each.inputs for each in self._packs]
        ids = [each.inputs["input_ids"] for each in self._packs]
        vectors = table(torch.cat([part.flatten() for part in ids]).to(self._place.device))
        parts = vectors.split([part.numel() for part in ids])
        return [
            {name: value for name, value in each.inputs.items() if name != "input_ids"}
            | {"inputs_embeds": part.view(*own.shape, -1)}
            for part, own, each in zip(parts, ids, self._packs, strict=True)
        ]

    def _encode(self, each: Pack, inputs: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(each.seed)
        output: Tensor = self._engine({name: value.to(self._place.device, non_blocking=True) for name, value in inputs.items()})
        return output

    def _surrogate(self, output: Tensor, each: Pack, gradient_ND: Tensor) -> Tensor:
        """A scalar whose gradient is the one wanted: the inner product, in float32, of embeddings and their gradient."""
        if not len(each.places):  # a pass that only keeps the ranks in step
            return 0.0 * output.float().sum()
        wanted = gradient_ND[torch.from_numpy(each.places).to(gradient_ND.device)]
        return (output.float() * wanted).sum()


def encode_rows(engine: Any, features: Features, rows: I64, place: Place, *, budget_tokens: int) -> Tensor:
    """Embeddings of `rows` in that order, [N, D] float32, without gradient.

    With ZeRO 3 every forward pass is a collective, so ranks with fewer micro-batches add empty ones.
    """
    chosen = features.take(rows)
    packs = [
        Pack(places, engine.module.collate(chosen.take(places)), 0)
        for places in pack(chosen.lengths, budget_tokens, pads=engine.module.pads)
    ]
    if place.world > 1 and engine.zero_optimization_stage() == 3:
        most = torch.tensor([len(packs)], device=place.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        packs += [Pack(np.zeros(0, np.int64), packs[-1].inputs, 0)] * (int(most.item()) - len(packs))
    return Pass(engine, packs, place, cached=True).forward()


def encode_shared(engine: Any, features: Features, rows: I64, place: Place, *, budget_tokens: int) -> Tensor:
    """As `encode_rows`, where each rank encodes its share of the same rows and gets all of them. Collective."""
    # with ZeRO 3 all ranks must make the same forward passes, so each encodes everything; else each takes its share
    if place.world == 1 or engine.zero_optimization_stage() == 3:
        return encode_rows(engine, features, rows, place, budget_tokens=budget_tokens)
    share = np.array_split(rows, place.world)[place.rank]
    if not len(share):
        share = rows[:1]
        return gather_rows(encode_rows(engine, features, share, place, budget_tokens=budget_tokens)[:0])
    return gather_rows(encode_rows(engine, features, share, place, budget_tokens=budget_tokens))
