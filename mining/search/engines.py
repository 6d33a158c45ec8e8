"""Engines that propose the nearest items of a shard: fast, not exact, each with a bound on its error.

Whatever an engine does not propose scores at most its last proposed score plus its error; `mining.search.topk` scores what was
proposed again exactly, and asks for more where that bound does not settle the K best.

Q queries, N items of the shard, D dimensions, W proposed items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cluster.tables.tables import F32, I64
from mining.search.kernels import RunningTop
from mining.search.rescoring import certain_scores
from mining.search.tiled_topk import tiled_topk

if TYPE_CHECKING:
    from torch import Tensor

EngineName = Literal["faiss", "torch", "int8", "half"]
SLACK = 16
"""Candidates proposed beyond those needed."""
ROUNDING_PER_DIMENSION = 2.0**-23
"""A float32 inner product of unit vectors is off by at most D × 2^-24, in whatever order it is summed; twice that, for
vectors stored in float16 and for the rounding of the score itself."""
EIGHT_BIT_ROUNDING = 2.0**-20
"""Rounding of what 8-bit scores are put together from (mean, scales, lengths): most, next to errors of 2^-10 and above."""
LIKELY_ERROR = 4.0
"""Standard deviations of the 8-bit error that a two-stage search allows for, instead of the largest possible one."""
BLOCK_BYTES = 3 * 2**30
"""Of a device's memory, for the scores of a tile and for float64 copies of what is scored exactly."""
OFTEN_UNSETTLED, MOST_OVERSAMPLE = 0.02, 8.0
TILE_QUERIES, TILE_ITEMS = 1024, 2048
"""Scores of a tile (int32) stay in the processor's cache between the product and the selection."""


@dataclass(frozen=True)
class Proposal:
    """What an engine proposes for some queries."""

    scores: F32
    """[Q, W] descending."""
    index: I64
    """[Q, W] positions in the shard; -1: fewer were found."""
    error: F32
    """[Q] an item that is not proposed scores at most scores[q, -1] + error[q]."""
    exact: F32 | None = None
    """[Q, W] the exact scores, where the engine knows them; NaN where the CPU has to sum one up."""


class Engine(Protocol):
    """Proposes nearest items of one shard."""

    def width(self, num_hits: int) -> int:
        """How many to propose at first, so that the best `num_hits` are nearly always settled."""

    def propose(self, queries_QD: F32, width: int) -> Proposal:
        """The `width` nearest items of each query, up to the error."""

    def learn(self, unsettled: float) -> None:
        """The first width left this share of the queries unsettled (of those with usual numbers of known items)."""


class FaissEngine:
    """float32 by faiss.knn, which runs at the rate of the matrix product."""

    def __init__(self, items_ND: F32) -> None:
        self._items = items_ND

    def width(self, num_hits: int) -> int:
        """A few more than needed: only rounding can change the order."""
        return num_hits + SLACK

    def propose(self, queries_QD: F32, width: int) -> Proposal:
        """See `Engine`."""
        import faiss

        scores, index = faiss.knn(queries_QD, self._items, width, metric=faiss.METRIC_INNER_PRODUCT)
        return Proposal(scores, index, _rounding(queries_QD))

    def learn(self, unsettled: float) -> None:
        """Does nothing: ties are searched again one by one."""


class TorchEngine:
    """float32, or half precision on a GPU, by a matrix product whose best scores are taken tile by tile."""

    def __init__(self, items_ND: F32, *, half: bool = False, device: str | None = None, rescores: bool | None = None) -> None:
        """As `Engine`.

        Args:
            rescores: the device scores exactly what it proposes; None: a GPU does, if its memory holds the float32 vectors too.
        """
        import torch

        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        # sums of half-precision products stay in float32: the error bound counts on it
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self._half, self._item_error = half, 0.0
        self._whole: Tensor | None = None
        """The vectors as they are, to score exactly."""
        rescores = _fits(items_ND, self._device, half=half) if rescores is None else rescores
        if rescores or not half:
            self._items = torch.from_numpy(items_ND).to(self._device)
            self._whole = self._items if rescores else None
        if not half:
            return
        # part by part: the device never holds more float32 vectors than it rescores from
        self._items = torch.empty(items_ND.shape, dtype=torch.float16, device=self._device)
        lost = torch.zeros((), device=self._device)
        for start in range(0, len(items_ND), 65_536):
            part = torch.from_numpy(items_ND[start : start + 65_536]).to(self._device)
            rounded = self._items[start : start + 65_536]
            rounded.copy_(part)
            lost = torch.maximum(lost, (part - rounded.float()).norm(dim=1).max())
        self._item_error = float(lost)

    def width(self, num_hits: int) -> int:
        """See `Engine`."""
        return num_hits + SLACK + (num_hits // 4 if self._half else 0)

    def propose(self, queries_QD: F32, width: int) -> Proposal:
        """See `Engine`."""
        import torch

        whole = torch.from_numpy(np.ascontiguousarray(queries_QD)).to(self._device)
        queries = whole.half() if self._half else whole
        scores, index = tiled_topk(queries, self._items, width)
        error = _rounding(queries_QD)
        if self._half:  # what rounding to half takes from the vectors and from the score (2^-11 of at most 1)
            lost = (whole - queries.float()).norm(dim=1).cpu().numpy()
            error = (error + self._item_error + lost + 2.0**-10).astype(np.float32)
        exact = None if self._whole is None else certain_scores(whole, self._whole, index).cpu().numpy()
        return Proposal(scores.float().cpu().numpy(), index.cpu().numpy(), error, exact)

    def learn(self, unsettled: float) -> None:
        """Does nothing, as for faiss."""


def _fits(items_ND: F32, device: str, *, half: bool) -> bool:
    """Whether a device's memory holds the shard in float32, and in half precision if need be, beside what a block takes."""
    import torch

    if torch.device(device).type != "cuda":
        return False  # the processors that would score are those that score anyway
    torch.cuda.empty_cache()  # what engines before this one held
    free, _ = torch.cuda.mem_get_info(device)
    return items_ND.size * (6 if half else 4) + BLOCK_BYTES <= free


def padded(rows: int, dimension: int) -> npt.NDArray[np.int8]:
    """Zeros for 8-bit vectors, whose length is made a multiple of 4: torch 2.13's product is wrong for length 1."""
    return np.zeros((rows, -(-dimension // 4) * 4), np.int8)


class EightBitItems:
    """Items as 8-bit whole numbers around their mean, with the loss of each."""

    def __init__(self, items_ND: F32) -> None:
        import torch

        self.mean = items_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.rows = len(items_ND)
        largest = max((float(np.abs(part - self.mean).max()) for part in _slices(items_ND)), default=0.0)
        self.scale = 127.0 / max(largest, 1e-12)
        values = padded(len(items_ND), items_ND.shape[1])
        self.lost = self.longest = 0.0
        start, squares = 0, 0.0
        for part in _slices(items_ND):
            centred = part - self.mean
            rounded = np.rint(centred * np.float32(self.scale))
            values[start : start + len(part), : items_ND.shape[1]] = rounded
            start += len(part)
            rounded /= np.float32(self.scale)
            loss = np.linalg.norm(centred - rounded, axis=1)
            self.lost = max(self.lost, float(loss.max(initial=0.0)))
            self.longest = max(self.longest, float(np.linalg.norm(rounded, axis=1).max(initial=0.0)))
            squares += float((loss.astype(np.float64) ** 2).sum())
        self.usual_loss = (squares / max(1, len(items_ND))) ** 0.5
        self.values = torch.from_numpy(values)


class EightBitQueries:
    """Queries as 8-bit whole numbers, each by a scale of its own."""

    def __init__(self, queries_QD: F32, items: EightBitItems, *, certain: bool) -> None:
        import torch

        scale = 127.0 / np.maximum(np.abs(queries_QD).max(axis=1, keepdims=True), 1e-12)
        rounded = np.rint(queries_QD * scale)
        values = padded(*queries_QD.shape)
        values[:, : queries_QD.shape[1]] = rounded
        self.values = torch.from_numpy(values)
        self.shift = queries_QD @ items.mean
        self.factor = (1.0 / (scale[:, 0] * items.scale)).astype(np.float32)
        lost = np.linalg.norm(queries_QD - rounded / scale, axis=1)
        length = np.linalg.norm(queries_QD, axis=1)
        # |q·x - q̂·x̂| <= |q|·|x - x̂| + |q - q̂|·|x̂| (Cauchy-Schwarz); as a random sum, 1/√D of that is its deviation
        if certain:
            error = (length * items.lost + lost * items.longest) * (1.0 + EIGHT_BIT_ROUNDING)
        else:
            deviation = np.hypot(length * items.usual_loss, lost * items.longest) / np.sqrt(queries_QD.shape[1])
            error = LIKELY_ERROR * deviation
        self.error = (error + _rounding(queries_QD) + EIGHT_BIT_ROUNDING).astype(np.float32)


class EightBitEngine:
    """8-bit products on the CPU's dot-product instructions, 3 to 5 times as fast as float32 ones."""

    def __init__(self, items_ND: F32, *, certain: bool, oversample: float) -> None:
        """As `Engine`.

        Args:
            certain: allow for the largest error possible: after exact scoring nothing is missed. Else for LIKELY_ERROR.
            oversample: items proposed at first, as a multiple of those needed.
        """
        self._items, self._certain, self._oversample = EightBitItems(items_ND), certain, oversample
        self._positions = np.arange(len(items_ND), dtype=np.int64)

    def width(self, num_hits: int) -> int:
        """See `Engine`."""
        return int(num_hits * self._oversample) + SLACK

    def propose(self, queries_QD: F32, width: int) -> Proposal:
        """See `Engine`."""
        made = [self._some(queries_QD[start : start + TILE_QUERIES], width) for start in range(0, len(queries_QD), TILE_QUERIES)]
        return (
            made[0]
            if len(made) == 1
            else Proposal(
                *(
                    np.concatenate(values)
                    for values in zip(*((some.scores, some.index, some.error) for some in made), strict=True)
                )
            )
        )

    def learn(self, unsettled: float) -> None:
        """Propose more for the next queries if many were unsettled."""
        self._oversample = learnt(self._oversample, unsettled)

    def _some(self, queries_QD: F32, width: int) -> Proposal:
        import torch

        queries = EightBitQueries(queries_QD, self._items, certain=self._certain)
        top, owners = RunningTop(len(queries_QD), width, np.int32), np.arange(len(queries_QD))
        for start in range(0, self._items.rows, TILE_ITEMS):
            tile = torch._int_mm(queries.values, self._items.values[start : start + TILE_ITEMS].T).numpy()
            top.offer(tile, owners, self._positions[start : start + TILE_ITEMS])
        return proposal_of(top, queries)


def learnt(oversample: float, unsettled: float) -> float:
    """What to propose next, as a multiple of what is needed: how much that must be depends on how dense the items lie."""
    return max(oversample, min(oversample * 1.5, MOST_OVERSAMPLE)) if unsettled > OFTEN_UNSETTLED else oversample


def proposal_of(top: RunningTop, queries: EightBitQueries) -> Proposal:
    """What was found, on the scale of the scores."""
    products, index = top.best()
    scores = products * queries.factor[:, None] + queries.shift[:, None]
    return Proposal(np.where(index >= 0, scores, -np.inf).astype(np.float32), index, queries.error)


def _rounding(queries_QD: F32) -> F32:
    return np.full(len(queries_QD), ROUNDING_PER_DIMENSION * queries_QD.shape[1], np.float32)


def _slices(items_ND: F32) -> list[F32]:
    return [items_ND[start : start + 16_384] for start in range(0, len(items_ND), 16_384)]


def make_engine(name: EngineName, items_ND: F32, *, certain: bool = True, oversample: float = 2.0) -> Engine:
    """An engine over `items_ND`; the names are those of `EngineName`."""
    if name == "faiss":
        return FaissEngine(items_ND)
    if name == "int8":
        return EightBitEngine(items_ND, certain=certain, oversample=oversample)
    return TorchEngine(items_ND, half=name == "half")
