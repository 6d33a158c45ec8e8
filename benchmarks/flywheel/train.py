"""What a model learns from the truth, from `hardmine pairs`, and from raw clicks: `python -m benchmarks.flywheel.train`.

An adapter on MiniLM's vectors of the simulator's catalogue is trained on the labels of seven texts in ten, with the project's own
batches, masks and loss, in this process. It is measured on the other texts, over the whole catalogue, by what users truly want.
Each seed is another catalogue with other users; the intervals are over the held-out queries of all seeds.

T texts, N items, D dimensions.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.flywheel.compare import Labels, raw_clicks, read_pairs
from benchmarks.flywheel.simulate import Truth, make_log, make_truth, write_ubi
from benchmarks.shared.inputs import packaged_model, temporary_folder
from cluster.labels.labels import Labels as Known
from cluster.session.progress import Progress
from cluster.session.resources import ClusterSettings
from cluster.session.session import ray_session
from cluster.tables.tables import F32, I64, offsets_of
from eval.metrics import Judgements, per_query_metrics
from eval.significance import F64, compare
from jobs.pairs.make import make_pairs
from jobs.pairs.settings import load_settings
from training.encoders.adapter import AdapterEncoder
from training.feed.batches import Batch
from training.feed.candidate_masks import candidate_masks
from training.objective.losses import info_nce

HELD_OUT = 0.3
BATCH, HARD, RANDOM, TEMPERATURE, LEARNING_RATE = 64, 4, 16, 0.05, 1e-3
METRICS = ("recall@30", "ndcg@10", "bad_top1")
ARMS = ("raw clicks", "pairs", "truth")


@dataclass(frozen=True)
class World:
    """One seed: its truth, and vectors of its texts and items."""

    truth: Truth
    texts_TD: F32  # noqa: N815
    items_ND: F32  # noqa: N815
    held_out: I64
    """Rows of texts that no arm is trained on."""


def make_world(texts: int, seed: int, model: Path) -> World:
    """A catalogue of 3,000 items with MiniLM's vectors."""
    from sentence_transformers import SentenceTransformer

    truth = make_truth(texts, 3000, seed)
    encoder = SentenceTransformer(str(model), device="cpu")
    texts_TD, items_ND = (
        np.asarray(encoder.encode(names, normalize_embeddings=True, batch_size=256), np.float32)
        for names in (truth.texts, [item["text"] for item in truth.items])
    )
    held_out = np.flatnonzero(np.random.default_rng(seed).random(texts) < HELD_OUT)
    return World(truth, texts_TD, items_ND, held_out)


def true_labels(truth: Truth) -> dict[tuple[str, str], float]:
    """What users think of what the engine may show; nobody could know more from a log."""
    return {pair: float(grade) for pair, grade in truth.grade().items()}


def train(world: World, labels: Labels, steps: int, seed: int) -> nn.Module:
    """An adapter, trained on the labels of the texts that are not held out."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    row = {text: number for number, text in enumerate(world.truth.texts) if number not in set(world.held_out.tolist())}
    place = {item["id"]: number for number, item in enumerate(world.truth.items)}
    good = sorted((row[text], place[name], value) for (text, name), value in labels.items() if value > 0 and text in row)
    negatives: dict[int, list[int]] = defaultdict(list)
    for (text, name), value in sorted(labels.items()):
        if value <= 0 and text in row:
            negatives[row[text]].append(place[name])
    query, item, weight = (np.asarray(column) for column in zip(*good, strict=True))
    many = len(world.truth.texts)
    known = Known(
        num_queries=many,
        num_items=len(place),
        offsets=offsets_of(np.bincount(query, minlength=many)),
        item_rows=item,
        scores=np.ones(len(item), np.int64),
        text_codes=np.arange(len(place)),
        group_codes=np.full(len(place), -1),
    )
    adapter = AdapterEncoder(world.items_ND.shape[1], 128)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    for _ in range(steps):
        chosen = rng.choice(len(query), min(BATCH, len(query)), replace=False)
        hard = np.stack([drawn(rng, negatives[one]) for one in query[chosen].tolist()])
        randoms = rng.integers(len(place), size=(len(chosen), RANDOM))
        batch = Batch.of(query[chosen], item[chosen], hard, randoms, np.minimum(1.0, weight[chosen]).astype(np.float32))
        columns_B = torch.from_numpy(np.searchsorted(batch.item_rows, batch.positive_rows))
        result = info_nce(
            adapter({"vectors": torch.from_numpy(world.texts_TD[batch.query_rows])}),
            adapter({"vectors": torch.from_numpy(world.items_ND[batch.item_rows])}),
            columns_B,
            temperature=TEMPERATURE,
            masked_BC=torch.from_numpy(candidate_masks(batch, batch.item_rows, known)[0]),
            weights_B=torch.from_numpy(batch.weights),
        )
        optimizer.zero_grad()
        result.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return adapter


def drawn(rng: np.random.Generator, rows: list[int]) -> I64:
    """HARD of the rows, -1 where there are fewer."""
    some = rng.permutation(rows)[:HARD]
    return np.concatenate([some, np.full(HARD - len(some), -1)]).astype(np.int64)


@torch.no_grad()
def measure(world: World, model: nn.Module | None) -> dict[str, F64]:
    """Metrics of each held-out text over the whole catalogue; None: MiniLM as it is."""
    queries, items = torch.from_numpy(world.texts_TD[world.held_out]), torch.from_numpy(world.items_ND)
    if model is not None:
        queries, items = model({"vectors": queries}), model({"vectors": items})
    hits = torch.topk(queries @ items.T, 30).indices.numpy()
    rows, items_of, grades = wanted(world)
    every = per_query_metrics(hits, world.held_out, Judgements.from_triples(rows, items_of, grades), ks=(30,))
    return {name: every[name] for name in METRICS}


def wanted(world: World) -> tuple[I64, I64, F64]:
    """(text row, item row, grade) of everything in the catalogue that somebody who asks a held-out text would want."""
    parts = [world.truth.wants(row) for row in world.held_out.tolist()]
    rows = np.repeat(world.held_out, [len(items) for items, _ in parts])
    return rows, np.concatenate([items for items, _ in parts]), np.concatenate([grades for _, grades in parts]).astype(float)


def labels_of(world: World, users: str, queries: int, seed: int) -> Mapping[str, Labels]:
    """The labels of each arm."""
    log = make_log(world.truth, queries, model=users, seed=seed)
    with tempfile.TemporaryDirectory() as temporary:
        logs, to = Path(temporary) / "log", Path(temporary) / "pairs"
        write_ubi(world.truth, log, logs)
        settings = load_settings(None, ("held_out=0.0",))
        make_pairs([str(logs)], str(to), settings, progress=Progress(quiet=True))
        pairs = read_pairs(to)
    return {"raw clicks": raw_clicks(world.truth, log), "pairs": pairs, "truth": true_labels(world.truth)}


def show(users: str, got: Mapping[str, list[dict[str, F64]]], base: list[dict[str, F64]]) -> None:
    """A row for each arm, with intervals of the difference to MiniLM as it is; then pairs against raw clicks."""
    joined = {arm: {name: np.concatenate([one[name] for one in values]) for name in METRICS} for arm, values in got.items()}
    before = {name: np.concatenate([one[name] for one in base]) for name in METRICS}
    print(f"| {users} | MiniLM | {' | '.join(f'{before[name].mean():.3f}' for name in METRICS)} |", flush=True)
    rows = [(arm, joined[arm], before) for arm in ARMS] + [("pairs − raw clicks", joined["pairs"], joined["raw clicks"])]
    for arm, values, against in rows:
        changes = compare(values, against)
        cells = [
            f"{values[name].mean():.3f} ({changes[name].interval.mean:+.3f} [{changes[name].interval.low:+.3f}, "
            f"{changes[name].interval.high:+.3f}])"
            for name in METRICS
        ]
        print(f"| {users} | {arm} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--users", action="append", choices=("pbm", "cascade"))
    options = parser.parse_args()
    with ray_session(ClusterSettings(cpus=2)), temporary_folder() as folder:
        worlds = [make_world(options.texts, seed, packaged_model(folder)) for seed in range(1, options.seeds + 1)]
        base = [measure(world, None) for world in worlds]
        print(f"| users | trained on | {' | '.join(METRICS)} |", flush=True)
        for users in options.users or ("pbm", "cascade"):
            got: dict[str, list[dict[str, F64]]] = {arm: [] for arm in ARMS}
            for seed, world in enumerate(worlds, start=1):
                labels = labels_of(world, users, options.queries, seed + 100)
                for arm in ARMS:
                    got[arm].append(measure(world, train(world, labels[arm], options.steps, seed)))
            show(users, got, base)


if __name__ == "__main__":
    main()
