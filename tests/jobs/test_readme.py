"""The README's commands, in their order, on small tables of the kind that it describes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from cluster.session.resources import ClusterSize
    from tests.jobs.conftest import Case

README = (Path(__file__).parents[2] / "README.md").read_text()
MAY_SAY_NO = ("probe", "gate")
"""Commands that exit with 1 where the answer is no."""


def commands() -> list[list[str]]:
    """The words after `.venv/bin/hardmine` of every line of the README's shell blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(".venv/bin/hardmine ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def write_tables(folder: Path) -> None:
    """500 items; a query for each, every fifth of dev, so that a tenth of the others fills a batch."""
    folder.mkdir()
    numbers = range(500)
    corpus = {"id": [f"i{n}" for n in numbers], "text": [f"a text about thing {n} of kind {n % 7}" for n in numbers]}
    splits = ["train" if n % 5 else "dev" for n in numbers]
    queries = {"id": [f"q{n}" for n in numbers], "text": [f"thing {n}" for n in numbers], "split": splits}
    qrels = {"query_id": queries["id"], "item_id": corpus["id"], "score": [1 for _ in numbers]}
    for name, table in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
        pq.write_table(pa.table(table), folder / f"{name}.parquet")


def make_small(config: Path) -> None:
    """What `init` wrote, with a model that needs no download, and one mined round."""
    text = re.sub(r'kind = "adapter".*\nmodel = .*', 'kind = "static"\ndimension = 8\nvocabulary = 256', config.read_text())
    assert "static" in text
    config.write_text(text.replace("mined = 2", "mined = 1") + "\n[cluster]\ncpus = 2\n")


@pytest.mark.cluster
def test_the_readme_s_commands_run_in_their_order(
    ray_case: Case, ray_local: ClusterSize, cross_encoder: Path, tmp_path: Path
) -> None:
    write_tables(tmp_path / "catalogue")
    ray_case.patch.chdir(tmp_path)
    assert len(commands()) > 5
    for written in commands():
        words = [word.replace("=MODEL", f"={cross_encoder}") for word in written]
        answer = ray_case.hardmine(*words)
        assert answer.code in ((0, 1) if words[0] in MAY_SAY_NO else (0,)), (words, answer.err)
        assert "Traceback" not in answer.err
        if words[0] == "init":
            make_small(tmp_path / "hardmine.toml")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0], names)  # what it runs is committed
    assert len(names["run"].rounds) >= 2
    assert (tmp_path / "runs" / "catalogue" / "report.html").exists()
