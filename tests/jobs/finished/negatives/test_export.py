"""Taking negatives elsewhere: the files another trainer reads, what is left out, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.commits import Ledger
from cluster.errors import ConfigError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.rows import group_blocks, rows_at_once
from cluster.tables.tables import Part, read_parts, write_part
from jobs.config.config import parse_config
from jobs.finished.negatives.export import Export, Exported, ExportTask, Written, card, check_export, export_blocks


def config(folder: Path, **mining: Any) -> Any:
    return parse_config(
        {"name": "x", "output": str(folder), "data": {"folder": "d"}, "mining": mining, "encoder": {"kind": "vectors"}},
        source="test",
        trains=False,
    )


def part(rows: int, size: int = 1000) -> Part:
    return Part("p", rows, size)


def test_blocks_that_share_few_items_are_looked_up_together() -> None:
    blocks = [part(10)] * 7
    assert group_blocks(blocks, 2**62, 5, 2) == [[0, 1, 2, 3], [4, 5, 6]]
    assert group_blocks(blocks, 100, 5, 1) == [[0, 1], [2, 3], [4, 5], [6]]
    assert group_blocks(blocks, 1, 5, 1) == [[n] for n in range(7)], "a block that is too large is looked up alone"
    assert group_blocks(blocks[:1], 100, 5, 16) == [[0]]


@pytest.mark.parametrize("tasks", [1, 3, 8, 100])
@pytest.mark.parametrize("rows", [1, 60, 333, 2**62])
def test_every_block_is_in_one_group_in_order(tasks: int, rows: int) -> None:
    sizes = np.random.default_rng(tasks).integers(1, 30, 50)
    groups = group_blocks([part(int(size)) for size in sizes], rows, 3, tasks)
    assert [number for group in groups for number in group] == list(range(50))
    assert len(groups) >= min(tasks, 50) or max(map(len, groups)) == -(-50 // tasks)
    assert all(len(group) == 1 or 3 * sizes[group].sum() <= rows for group in groups)


def test_a_corpus_that_fits_is_looked_up_whole() -> None:
    assert rows_at_once([part(1_000_000, 30 * 2**20)]) == 2**62
    some = rows_at_once([part(1_000_000, 2**30), part(1_000_000, 2**30)])
    assert 60_000 < some < 65_000, "256 MiB of texts of about 4 KiB"


def world(root: Path) -> tuple[ExportTask, list[list[int]]]:
    """Query q has relevant item q and q % 4 + 1 negatives, from items anywhere in the corpus."""
    store = Store(str(root / "run"))
    items = pa.table({"text": [f"item {n}" for n in range(50)]})
    queries = pa.table({"text": [f"query {n}" for n in range(12)]})
    chosen = [[(7 * q + 11 * n) % 50 for n in range(q % 4 + 1)] for q in range(12)]
    negatives = pa.table(
        {
            "query_row": range(12),
            "query_id": [f"q{n}" for n in range(12)],
            "positive_rows": [[q] for q in range(12)],
            "positive_ids": [[f"i{q}"] for q in range(12)],
            "positive_scores": [[0.5]] * 12,
            "negative_rows": chosen,
            "negatives": [[{"item_id": f"i{row}", "score": 0.25} for row in rows] for rows in chosen],
        }
    )
    return ExportTask(
        store=store,
        target=Store(str(root / "out")),
        columns="n-tuple",
        num=2,
        corpus=[write_part(store, f"c/{start}", items.slice(start, 8), first_row=start) for start in range(0, 50, 8)],
        queries=[write_part(store, f"q/{start}", queries.slice(start, 5), first_row=start) for start in range(0, 12, 5)],
        negatives=[write_part(store, f"n/{start}", negatives.slice(start, 5)) for start in range(0, 12, 5)],
    ), chosen


@pytest.mark.parametrize("cells", [4, 9, 65_536])
def test_blocks_become_files_with_ids_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr("jobs.finished.negatives.export.CELLS", cells)
    task, chosen = world(tmp_path)
    assert export_blocks(task, [0, 1]).add(export_blocks(task, [2])) == Written(rows=9, left_out=3, longest=4, files=3)
    got = [row for number in range(3) for row in pq.read_table(tmp_path / f"out/part-{number:05d}.parquet").to_pylist()]
    assert got == [
        {
            "anchor": f"query {q}",
            "positive": f"item {q}",
            "negative_1": f"item {chosen[q][0]}",
            "negative_2": f"item {chosen[q][1]}",
        }
        for q in range(12)
        if q % 4
    ]
    ids = [row for number in range(3) for row in pq.read_table(tmp_path / f"out/ids/part-{number:05d}.parquet").to_pylist()]
    assert [(row["query_id"], row["positive_id"], row["negative_ids"]) for row in ids] == [
        (f"q{q}", f"i{q}", [f"i{row}" for row in chosen[q][:2]]) for q in range(12) if q % 4
    ]


@pytest.mark.parametrize(("columns", "words"), [("n-tuple", "MultipleNegativesRankingLoss"), ("labeled-list", "LambdaLoss")])
def test_the_card_tells_texts_from_ids_and_how_to_train(columns: str, words: str) -> None:
    page = card(Exported("s3://b/texts", columns, num=5, run="s3://b/run", stage="mine", key="k", rows=1234, left_out=6, files=1))
    assert page.split("---")[1].split() == [
        "configs:",
        "-",
        "config_name:",
        "default",
        "data_files:",
        '"*.parquet"',
        "-",
        "config_name:",
        "ids",
        "data_files:",
        '"ids/*.parquet"',
    ]
    assert "1,234 rows with 5 negatives at most" in page
    code = page.split("```")[1].removeprefix("python")
    compile(code, "card", "exec")
    assert words in code


def test_more_negatives_than_are_mined_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--num 6: expected 1 to mining\.num_negatives = 5"):
        check_export(Export(str(tmp_path / "out"), num=6), config(tmp_path, num_negatives=5))


def test_only_an_empty_folder_or_an_earlier_export_is_written_to(tmp_path: Path) -> None:
    target, settings = tmp_path / "out", config(tmp_path)
    check_export(Export(str(target)), settings)
    (target / "ids").mkdir(parents=True)
    for name in ("export.json", "README.md", "part-00000.parquet", "ids/part-00000.parquet"):
        (target / name).write_text("x")
    check_export(Export(str(target)), settings)
    (target / "thesis.doc").write_text("x")
    with pytest.raises(ConfigError, match=r"found 1 other file\(s\), thesis.doc"):
        check_export(Export(str(target)), settings)
    (target / "thesis.doc").unlink()
    (target / "export.json").unlink()
    with pytest.raises(ConfigError, match=r"found 3 other file\(s\)"):
        check_export(Export(str(target)), settings)


def test_what_to_export_without_an_export(case: Any, refused: Any) -> None:
    refused(case.run("--num", "3", command="mine"), 2, ["--num", "--export is missing"])
    refused(case.run("--columns", "quadruple", "--export", "x", command="mine"), 2, ["quadruple", "n-tuple"])


def mined_case(case: Any) -> None:
    """Vectors around four directions, so that a least score leaves some queries few negatives."""
    generator = np.random.default_rng(2)
    for rows in (case.items, case.queries):
        for number, row in enumerate(rows):
            row["vector"] = (np.eye(4)[number % 4] + 0.3 * generator.normal(size=4)).tolist()
    case.settings["encoder"] = {"kind": "vectors"}
    case.settings["mining"] = {"num_hits": 8, "num_negatives": 3, "relative_margin": "off", "min_score": 0.8}
    case.set("cluster.query_block", 3)


@pytest.mark.cluster
def test_an_export_is_row_for_row_what_was_mined_and_an_empty_one_says_what_to_ask_for(ray_case: Any, ray_local: Any) -> None:
    mined_case(ray_case)
    target = ray_case.folder / "taken"
    answer = ray_case.run("--export", str(target), "--num", "2", "--json", command="mine")
    assert answer.code == 0, answer.err
    export = json.loads(answer.out)["export"]
    store = Store(str(ray_case.folder / "out/run"))
    mined = Ledger(store).find("mine")
    assert mined is not None
    rows = read_parts(store, mined.parts("negatives")).to_pylist()
    texts = {row["id"]: f"{row['title']} {row['text']}" for row in ray_case.items}
    asked = {row["id"]: row["text"] for row in ray_case.queries}
    want = [
        {
            "anchor": asked[row["query_id"]],
            "positive": texts[item],
            **{f"negative_{n + 1}": texts[row["negatives"][n]["item_id"]] for n in range(2)},
        }
        for row in rows
        for item in row["positive_ids"]
        if len(row["negatives"]) >= 2
    ]
    assert 0 < len(want) < 8, "some are left out, some are not"
    assert pq.read_table(target, ignore_prefixes=["ids", "README", "export"]).to_pylist() == want
    assert (export["rows"], export["left_out"], export["num"]) == (len(want), 8 - len(want), 2)
    assert json.loads((target / "export.json").read_text())["complete"]

    told = ray_case.hardmine("mine", str(ray_case.folder / "run.toml"), "--export", str(target), "--columns", "triplet")
    assert f"export:     {target} (triplet" in told.out
    assert pq.read_table(target / "part-00000.parquet").column_names == ["anchor", "positive", "negative"]

    ray_case.set("mining.min_score", 0.999)
    answer = ray_case.run("--export", str(ray_case.folder / "nothing"), command="mine")
    assert answer.code == 2
    assert "expected rows with 3 negatives, found none among 8 pairs" in answer.message
    assert "--num" in answer.message
    assert not json.loads((ray_case.folder / "nothing/export.json").read_text())["complete"]


@pytest.mark.cluster
def test_an_export_goes_to_object_storage(ray_case: Any, ray_local: Any, s3_endpoint: str, s3_bucket: str) -> None:
    mined_case(ray_case)
    ray_case.set("storage.endpoint", s3_endpoint)
    ray_case.set("output", f"{s3_bucket}/runs")
    answer = ray_case.run("--export", f"{s3_bucket}/taken", "--columns", "labeled-list", "--json", command="mine")
    assert answer.code == 0, answer.err
    store = Store(f"{s3_bucket}/taken", StorageSettings(endpoint=s3_endpoint))
    found = store.list()
    assert {"README.md", "export.json", "part-00000.parquet", "ids/part-00000.parquet"} <= found.keys()
    parts = [pq.read_table(io.BytesIO(store.read_bytes(name))) for name in sorted(found) if name.startswith("part-")]
    rows = pa.concat_tables(parts).to_pylist()
    assert len(rows) == json.loads(answer.out)["export"]["rows"]
    assert all(
        len(row["positive"]) == len(row["labels"]) and row["labels"][0] == 1 and not any(row["labels"][1:]) for row in rows
    )


@pytest.mark.slow
def test_the_columns_train_a_sentence_transformer_as_they_are(tmp_path: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    task, _ = world(tmp_path)
    export_blocks(task, [0, 1, 2])
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out").glob("part-*"))])
    words = sorted({word for name in table.column_names for text in table[name].to_pylist() for word in text.split()})
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, **{word: n for n, word in enumerate(words, 1)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def value() -> torch.Tensor:
        # what a trainer hands over: one batch of features for each column, in the columns' order
        result: torch.Tensor = loss([model.preprocess(table[name].to_pylist()) for name in table.column_names], None)
        return result

    before = value()
    anchor, positive, *negatives = (model.encode(table[name].to_pylist(), convert_to_tensor=True) for name in table.column_names)
    candidates = torch.nn.functional.normalize(torch.cat([positive, *negatives]), dim=1)
    logits = 20 * torch.nn.functional.normalize(anchor, dim=1) @ candidates.T
    want = torch.nn.functional.cross_entropy(logits, torch.arange(len(anchor)))
    assert before.item() == pytest.approx(want.item(), rel=1e-4), "each anchor against its own positive, then all others"
    before.backward()
    optimizer.step()
    assert value().item() < before.item()
