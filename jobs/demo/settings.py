"""`hardmine demo`: the generated catalogue as Parquet files, and the configuration that runs on it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from cluster.errors import ConfigError
from jobs.config.config import Config, parse_config
from jobs.demo.catalogue import generate_catalogue


def write_catalogue(folder: Path, titles: int) -> None:
    """The catalogue's three tables as Parquet files; kept if they are there."""
    if all((folder / f"{name}.parquet").exists() for name in ("corpus", "queries", "qrels")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = generate_catalogue(num_titles=titles, num_queries=titles * 4 // 5)
    for name in ("corpus", "queries", "qrels"):
        partial = folder / f".{name}.partial"
        pq.write_table(getattr(catalogue, name), partial)
        partial.replace(folder / f"{name}.parquet")


def demo_config(output: Path, *, compare_random: bool, encoder: str, titles: int) -> Config:
    """Write the catalogue below `output` and return the configuration of the demo.

    Raises:
        ConfigError: an unknown kind of encoder.
    """
    if encoder not in ("static", "transformer"):
        raise ConfigError(f"--encoder: expected static or transformer, found {encoder!r}")
    folder = output.absolute() / f"catalogue-{titles}"
    write_catalogue(folder, titles)
    model = None
    if encoder == "transformer":
        from jobs.demo.transformer import write_small_transformer

        model = str(write_small_transformer(folder))
    return parse_config(
        {
            "name": f"demo-{encoder}-{titles}",
            "output": str(output.absolute()),
            "data": {name: str(folder / f"{name}.parquet") for name in ("corpus", "queries", "qrels")}
            | {"item_text": "{title} by {author} | {genres} | {text}"},
            "encoder": {"kind": encoder} | ({"model": model} if model else {"dimension": 256}),
            # a warm-up until random negatives teach little, and batches that hold a thirtieth of the catalogue: where mining
            # starts in earnest (batches of 64 meet an eighth of these titles, hard ones for every query among them)
            "rounds": {"warmup_epochs": 6, "mined": 2, "compare_random": compare_random},
            "mining": {"num_hits": 100, "num_negatives": 32},
            # a transformer that knows nothing needs another rate than one that is fine-tuned
            "training": {"epochs": 3, "batch_size": 16, "hard_negatives": 8} | ({"learning_rate": 1e-3} if model else {}),
        },
        source="demo",
    )
