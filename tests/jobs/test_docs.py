"""The guides for one job each: their commands and their Python, in their order, on small data of the kind that they speak of."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from eval.diagnosis.evidence import STEP_FIGURES
from tests.support.synthetic_run import write_run
from tests.support.tiny_models import SMALL, plain

if TYPE_CHECKING:
    from cluster.session.resources import ClusterSize
    from tests.jobs.conftest import Case

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = ("api-vectors", "cluster", "data", "judged-negatives", "plateau", "report")
WHOLE = ("api-vectors", "cluster")
"""Guides whose trainings are of another kind than the README's; of the others, what the README's test runs is not run again."""
QUERIES, ITEMS = 120, 40


def test_every_job_has_its_guide_and_the_readme_names_it() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    assert [name for name in GUIDES if f"docs/{name}.md" not in readme] == []


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for address in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert address.startswith("http") or (page.parent / address).exists(), address


def test_the_readme_is_short() -> None:
    assert len((DOCS.parent / "README.md").read_text().split()) <= 1300


def write_tables(folder: Path, **queries: list[object]) -> None:
    """120 queries, every fifth of dev, and a judged negative for each."""
    folder.mkdir(parents=True)
    numbers = range(QUERIES)
    corpus = {"id": [f"i{n}" for n in range(ITEMS)], "text": [f"a text about thing {n} of kind {n % 7}" for n in range(ITEMS)]}
    asked = {"id": [f"q{n}" for n in numbers], "text": [f"thing {n % ITEMS} at {n}" for n in numbers]}
    asked["split"] = ["train" if n % 5 else "dev" for n in numbers]
    labels = {
        "query_id": [f"q{n}" for n in numbers] * 2,
        "item_id": [f"i{n % ITEMS}" for n in numbers] + [f"i{(n + 1) % ITEMS}" for n in numbers],
        "score": [1] * QUERIES + [0] * QUERIES,
    }
    for name, table in (("corpus", corpus), ("queries", asked | queries), ("qrels", labels)):
        pq.write_table(pa.table(table), folder / f"{name}.parquet")


def api_vectors(folder: Path) -> None:
    """Texts, and vectors in files as batches of an API return them."""
    write_tables(folder / "texts")
    (folder / "shop").mkdir()
    (folder / "vectors").mkdir()
    (folder / "texts" / "qrels.parquet").rename(folder / "shop" / "qrels.parquet")
    random = np.random.default_rng(5)
    items = random.standard_normal((ITEMS, 16))
    queries = items[np.arange(QUERIES) % ITEMS] + random.standard_normal((QUERIES, 16))
    for name, letter, vectors in (("corpus", "i", items), ("queries", "q", queries)):
        lines = [json.dumps({"id": f"{letter}{n}", "embedding": vector.tolist()}) for n, vector in enumerate(vectors)]
        (folder / "vectors" / f"{name}.jsonl").write_text("\n".join(reversed(lines)))


def own_data(folder: Path) -> None:
    """The tables, and pairs."""
    write_tables(folder / "catalogue")
    (folder / "pairs").mkdir()
    pairs = pa.table({"anchor": ["thing 1", "thing 2", "thing 1"], "positive": ["a", "b", "c"]})
    pyarrow.csv.write_csv(pairs, folder / "pairs.csv")


def plateau(folder: Path) -> None:
    """Logs of a training that stands still, and its checkpoint."""
    write_tables(folder / "catalogue")
    log = [{"step": n, "epoch": n / 40, "loss": 2.0 / n + 0.1} for n in range(1, 81)]
    log += [{"step": n, "epoch": n / 40, "eval_recall@10": 0.4} for n in (20, 40, 60, 80)]
    (folder / "output").mkdir()
    (folder / "output" / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    lines = [f"{entry['step']},{entry['loss']},0.4" for entry in log[:80]]
    (folder / "metrics.csv").write_text("step,loss,recall@10\n" + "\n".join(lines))
    (folder / "output" / "checkpoint-500").mkdir()
    plain("Bert", **SMALL)(folder / "output" / "checkpoint-500")


def reports(folder: Path) -> None:
    """Two runs."""
    for name in ("catalogue", "first", "second"):
        write_run(folder / "runs" / name)


PREPARE: dict[str, Callable[[Path], None]] = {
    "api-vectors": api_vectors,
    "cluster": lambda folder: write_tables(folder / "catalogue"),
    "data": own_data,
    "judged-negatives": lambda folder: write_tables(folder / "products"),
    "plateau": plateau,
    "report": reports,
}


def steps(page: str) -> list[tuple[str, str]]:
    """("bash", a command) or ("python", a block), in their order. What a test cannot run stands in ```sh blocks."""
    found: list[tuple[str, str]] = []
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL):
        if language == "bash":
            found += [(language, line) for line in block.splitlines() if line.strip()]
        elif "…" not in block:  # the address of a model ends with its key
            found.append((language, block))
    return found


def readme_commands() -> list[list[str]]:
    """The words after `.venv/bin/hardmine`, of every command that tests/jobs/test_readme.py runs."""
    lines = re.findall(r"(?m)^\.venv/bin/hardmine (.*)", (DOCS.parent / "README.md").read_text())
    return [shlex.split(line, comments=True) for line in lines]


def make_small(config: Path) -> None:
    """What `init` wrote, with a model that needs no download and may be random, and one warm-up epoch."""
    text = config.read_text()
    text = re.sub(r'kind = "adapter".*\nmodel = .*', 'kind = "static"\ndimension = 16\nvocabulary = 256', text)
    text = re.sub(r"(?m)^(epochs|warmup_epochs) = .*", r"\1 = 1", text.replace("mined = 2", "mined = 0"))
    text = text.replace("relative_margin = 0.05", 'relative_margin = "off"')
    config.write_text(text + "\n[cluster]\ncpus = 2\n")


@pytest.mark.cluster
@pytest.mark.parametrize("page", GUIDES)
def test_the_guide_s_commands_run_in_their_order(
    page: str, ray_case: Case, ray_local: ClusterSize, s3_bucket: str, s3_endpoint: str
) -> None:
    case = ray_case
    case.patch.chdir(case.folder)
    case.patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    PREPARE[page](case.folder)
    if page == "cluster":
        upload(case.folder / "catalogue", s3_bucket)
    assert len(steps(page)) >= 3
    for language, text in steps(page):
        if language == "python":
            done = subprocess.run([sys.executable, "-c", text], cwd=case.folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            continue
        command, *words = shlex.split(text.replace("s3://bucket", s3_bucket), comments=True)
        assert command == "hardmine"
        if words[0] == "init" and page == "cluster":  # the workers of a Ray that runs have the environment that it started in
            words.append(f"storage.endpoint={s3_endpoint}")
        if page not in WHOLE and words[0] != "init" and words in readme_commands():
            continue
        answer = case.hardmine(*words)
        assert answer.code == 0, (words, answer.err)
        assert "Traceback" not in answer.err
        if words[0] == "init":
            make_small(case.folder / "hardmine.toml")


def test_the_columns_of_the_plateau_guide_are_those_that_training_logs() -> None:
    block = next(text for language, text in steps("plateau") if language == "python")
    names: dict[str, Any] = {}
    exec(block, names)
    scores = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.1, 0.1, 0.1]])
    got = names["geometry"](scores, temperature=1.0)
    assert set(got) <= set(STEP_FIGURES)
    weights = 1 / (1 + 3 * np.exp(scores[:, 1] - scores[:, 0]))
    want = {"positive_probability": weights.mean(), "hardest_weight": 1 / 3, "effective_negatives": 3, "above_positive": 0}
    assert {name: got[name] for name in want} == pytest.approx(want)


def upload(folder: Path, bucket: str) -> None:
    """The folder's files, below the bucket."""
    from cluster.storage.store import Store

    store = Store(f"{bucket}/{folder.name}")
    for path in folder.iterdir():
        store.write_bytes(path.name, path.read_bytes())
