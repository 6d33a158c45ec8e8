"""One of three gloo ranks: writes what it computed, next to the single-process truth, for `test_gather.py` to judge.

Run as `python gather_worker.py RANK WORLD_SIZE FOLDER`; writes FOLDER/rank_RANK.json.  A script of its own because
functions of a test module cannot be pickled for spawn under importlib mode.  Two ranks are the subgroup {0, 1} of the
three.
"""

import json
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from training.objective.gather import _sum_own_rows, gather_rows, mean_over_ranks
from training.objective.losses import info_nce, triplet

FEATURES, DIM, TEMPERATURE, MARGIN = 6, 5, 0.1, 0.4
ITEMS_OF_RANK = ([11, 3, 7, 20], [7, 5, 11, 9, 2, 30, 31], [5, 40, 3])  # 11 and 7 on two ranks; 3 and 5 as well with three
POSITIVES_OF_RANK = ([3, 11, 20], [11, 5, 7], [3, 40, 5])
KNOWN = {3: [7], 11: [5, 9], 5: [40], 7: []}  # further known positives of the query whose positive is the key


@dataclass
class Batch:
    """Plain values, so that the joined batch is put together with loops and not by the code under test."""

    queries: Tensor
    positives: list[int]
    items: list[int]
    weights: Tensor


def batch_of(rank: int, num_queries: int) -> Batch:
    generator = torch.Generator().manual_seed(100 + rank)
    queries_BF = torch.randn(num_queries, FEATURES, generator=generator, dtype=torch.float64)
    weights_B = torch.rand(num_queries, generator=generator, dtype=torch.float64) + 0.1
    return Batch(queries_BF, POSITIVES_OF_RANK[rank][:num_queries], list(ITEMS_OF_RANK[rank]), weights_B)


def item_features(items: list[int]) -> Tensor:
    rows = [torch.randn(FEATURES, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in items]
    return torch.stack(rows)


def make_encoder() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, DIM, dtype=torch.float64)


def slow_mask(positives: list[int], columns: list[int]) -> Tensor:
    masked = torch.zeros(len(positives), len(columns), dtype=torch.bool)
    for b, positive in enumerate(positives):
        for c, item in enumerate(columns):
            masked[b, c] = item in KNOWN.get(positive, []) or item in columns[:c]
    return masked


def loss_of(
    kind: str, q: Tensor, items: Tensor, positive: Tensor, *, masked: Tensor, w: Tensor | None, d: Tensor | None
) -> Tensor:
    if kind == "triplet":
        return triplet(q, items, positive, margin=MARGIN, masked_BC=masked, weights_B=w, denominator=d)
    return info_nce(q, items, positive, temperature=TEMPERATURE, masked_BC=masked, weights_B=w, denominator=d).loss


def joined_truth(kind: str, batches: list[Batch], weighted: bool) -> tuple[Tensor, Tensor]:
    encoder = make_encoder()
    columns = list(dict.fromkeys(item for batch in batches for item in batch.items))
    positives = [positive for batch in batches for positive in batch.positives]
    q = functional.normalize(encoder(torch.cat([batch.queries for batch in batches])), dim=1)
    items = functional.normalize(encoder(item_features(columns)), dim=1)
    positive_column = torch.tensor([columns.index(positive) for positive in positives])
    weights = torch.cat([batch.weights for batch in batches]) if weighted else None
    loss = loss_of(kind, q, items, positive_column, masked=slow_mask(positives, columns), w=weights, d=None)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])


def distributed(kind: str, batch: Batch, weighted: bool, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    encoder = make_encoder()
    q = functional.normalize(encoder(batch.queries), dim=1)
    items = gather_rows(functional.normalize(encoder(item_features(batch.items)), dim=1), group=group)
    columns = gather_rows(torch.tensor(batch.items), group=group).tolist()
    repeated = torch.tensor([columns.index(item) < place for place, item in enumerate(columns)])
    masked = slow_mask(batch.positives, columns) | repeated
    positive_column = torch.tensor([columns.index(positive) for positive in batch.positives])
    weights = batch.weights if weighted else None
    denominator = mean_over_ranks(batch.weights.sum(), group=group) if weighted else None
    loss = loss_of(kind, q, items, positive_column, masked=masked, w=weights, d=denominator)
    loss.backward()
    grads = torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])
    # What DDP and DeepSpeed do: average the parameter gradients over ranks.
    return mean_over_ranks(loss, group=group), mean_over_ranks(grads, group=group)


def compare(rank: int, world_size: int, group: dist.ProcessGroup | None) -> dict[str, dict[str, float]]:
    report = {}
    for kind in ("info_nce", "triplet"):
        for weighted in (False, True):
            # Without weights B is equal; with them, ranks differ in B and in their sum of weights.
            num_queries = [3, 2, 1] if weighted else [2, 2, 2]
            batches = [batch_of(r, num_queries[r]) for r in range(world_size)]
            loss, grads = distributed(kind, batches[rank], weighted, group)
            want_loss, want_grads = joined_truth(kind, batches, weighted)
            report[f"{kind}{'_weighted' if weighted else ''}"] = {
                "got_loss": loss.item(),
                "want_loss": want_loss.item(),
                "gradient_error": ((grads - want_grads).norm() / want_grads.norm()).item(),
            }
    return report


def gather_details(rank: int, world_size: int) -> dict[str, object]:
    counts = [2, 0, 3]
    start, own = sum(counts[:rank]), counts[rank]
    report: dict[str, object] = {}
    for dtype in (torch.int64, torch.bool, torch.float32, torch.bfloat16):
        whole = torch.arange(10).reshape(5, 2).to(dtype)
        got = gather_rows(whole[start : start + own])
        report[f"rows_{dtype}"] = bool(got.equal(whole)) and got.dtype == dtype and not got.requires_grad
    for dtype in (torch.float64, torch.bfloat16):
        x = torch.ones(own, 2, dtype=dtype, requires_grad=True)
        factors = torch.arange(10).reshape(5, 2).to(dtype)
        (gather_rows(x) * factors * (rank + 1)).sum().backward()
        want = (factors * sum(r + 1 for r in range(world_size)))[start : start + own]  # summed over ranks
        report[f"gradient_{dtype}"] = x.grad is not None and bool(x.grad.equal(want))
    grad_C = torch.arange(10.0).reshape(5, 2) + rank
    by_reduce = _sum_own_rows(grad_C, counts, None, scatter=False)
    report["scatter_equals_reduce"] = bool(_sum_own_rows(grad_C, counts, None, scatter=True).equal(by_reduce))
    return report


def main(rank: int, world_size: int, folder: Path) -> None:
    """Run all cases as one rank."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size, timeout=timedelta(seconds=300)
    )
    pair = dist.new_group([0, 1])
    report: dict[str, object] = {"details": gather_details(rank, world_size)}
    report["ranks_3"] = compare(rank, world_size, None)
    if rank < 2:
        report["ranks_2"] = compare(rank, 2, pair)
    else:
        try:
            gather_rows(torch.ones(1), group=pair)
        except ValueError as error:
            report["outside_group"] = str(error)
    (folder / f"rank_{rank}.json").write_text(json.dumps(report))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
