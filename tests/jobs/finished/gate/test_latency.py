"""Latency really measured on tiny models; no test says how long anything takes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Commit
from cluster.storage.model_folders import folder_digest, upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import vectors_to_column, write_part
from jobs.finished.finished_run import FinishedRun
from jobs.finished.gate.latency import LEAST_PAIRS, REPEATS, WARM_UP, measure_latency, time_in_turns
from jobs.record.record import RunRecord
from jobs.record.stages import Kind


def test_both_models_encode_the_same_queries_in_changing_order() -> None:
    calls: list[str] = []
    model, base = time_in_turns(lambda n: calls.append(f"model {n}"), lambda n: calls.append(f"base {n}"), 3, 7)
    timed = calls[2 * WARM_UP :]
    assert timed[:6] == ["model 0", "base 0", "base 0", "model 0", "model 0", "base 0"]
    assert timed[2 * REPEATS :][:2] == ["base 1", "model 1"]
    assert len(timed) == 2 * 7 * REPEATS
    assert base is not None
    assert len(model) == len(base) == 7


def test_of_five_times_the_fastest_counts() -> None:
    # seconds; in some moments the machine did something else
    took = itertools.chain([0.0] * WARM_UP, itertools.cycle([0.005, 0.9, 0.004, 0.1, 0.006]))
    now = [0.0]

    def encode(_: int) -> None:
        now[0] += next(took)

    found, base = time_in_turns(encode, None, 1, 5, clock=lambda: now[0])
    assert found == pytest.approx(np.full(5, 4.0))
    assert base is None


def test_slow_models_are_measured_for_the_budget_but_not_less_than_thirty_times() -> None:
    seconds = iter(range(1_000))
    found, _ = time_in_turns(lambda n: None, None, 1, 300, budget_s=1.0, clock=lambda: float(next(seconds)))
    assert len(found) == LEAST_PAIRS


def run_of(store: Store, folders: dict[str, Path], kind: str, queries: pa.Table) -> FinishedRun:
    """A run whose commits hold these model folders."""
    part = write_part(store, "queries/0", queries)
    commits = {"ingest": Commit("ingest", "k", {}, {"queries": [part.to_json()]}), "base": Commit("base", "k", {})}
    for name, folder in folders.items():
        files = upload_folder(folder, store, f"{name}/model")
        commits[name] = Commit(
            name, "k", {}, files=files, figures={"prefix": f"{name}/model", "digest": folder_digest(files, f"{name}/model")}
        )
    return FinishedRun(
        store, RunRecord.of_commits(list(commits.values())), {"best_round": 1, "rounds": []}, {"encoder": {"kind": kind}}
    )


def static_folder(folder: Path, seed: int) -> Path:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    from training.encoders.static import write_static_folder

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "query": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    write_static_folder(folder, tokenizer.to_str(), torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)))
    return folder


def transformer_folder(folder: Path, cross_encoder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from training.encoders import st_format

    AutoTokenizer.from_pretrained(str(cross_encoder)).save_pretrained(str(folder))
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=77,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        ),
        add_pooling_layer=False,
    ).save_pretrained(str(folder))
    st_format.write_modules(
        folder, [("", st_format.TRANSFORMER), ("1_Pooling", st_format.POOLING), ("2_Normalize", st_format.NORMALIZE)]
    )
    st_format.write_pooling(folder / "1_Pooling", "mean", 16)
    st_format.write_normalize(folder / "2_Normalize")
    st_format.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    st_format.write_prompts(folder, {"query": "query: "})
    return folder


def check(found: tuple[Any, dict[str, Any]], pairs: int, *, base: bool = True) -> None:
    latency, told = found
    assert latency.pairs == told["pairs"] == pairs
    assert 0 < latency.model_p50 <= latency.model_p95
    assert (latency.base_p50 is not None) == base
    assert (latency.p95_increase is not None) == base
    assert latency.added_ms.low <= latency.added_ms.mean <= latency.added_ms.high
    assert told["machine"].keys() >= {"device", "processor", "threads", "load"}


QUERIES = pa.table({"text": [f"a query {n}" for n in range(5)]})


@pytest.mark.slow
def test_a_static_model_against_the_one_it_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    folders = {"base": static_folder(tmp_path / "a", 0), "finish": static_folder(tmp_path / "b", 1)}
    run = run_of(Store(str(tmp_path / "run")), folders, "static", QUERIES)
    check(measure_latency(run, 1, np.array([0, 2, 4]), pairs=20, confidence=0.95), 20)


@pytest.mark.slow
def test_a_transformer_and_an_adapter_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cross_encoder: Path) -> None:
    from training.encoders.adapter import new_adapter_folder

    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    base = transformer_folder(tmp_path / "base", cross_encoder)
    (tmp_path / "adapter").mkdir()
    new_adapter_folder(tmp_path / "adapter", 16, 8, seed=0)
    folders = {"base": base, "finish": base, "round-02-train": tmp_path / "adapter"}
    run = run_of(Store(str(tmp_path / "run")), folders, "adapter", QUERIES)
    check(measure_latency(run, 1, np.arange(5), pairs=20, confidence=0.95), 20)
    check(measure_latency(run, 2, np.arange(5), pairs=20, confidence=0.95), 20)
    assert not list(temporary.iterdir()), "folders of models are left behind"


@pytest.mark.slow
def test_an_adapter_on_given_vectors_is_measured_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.encoders.adapter import AdapterEncoder, export_with_base

    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    export_with_base(AdapterEncoder(8, 4), None, tmp_path / "adapter")
    vectors = vectors_to_column(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32))
    queries = QUERIES.append_column("vector", vectors)
    run = run_of(Store(str(tmp_path / "run")), {"finish": tmp_path / "adapter"}, "adapter", queries)
    found = measure_latency(run, 1, np.arange(5), pairs=20, confidence=0.95)
    check(found, 20, base=False)
    assert "the adapter alone" in found[1]["what"]
    assert not list(temporary.iterdir()), "folders of models are left behind"


def test_a_sequence_encoder_reads_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.encoders.sequence import history_tokens, new_sequence_folder

    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    vectors = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    new_sequence_folder(tmp_path / "model", vectors, [f"i{n}" for n in range(6)], hidden=4, max_length=3, seed=0)
    store = Store(str(tmp_path / "run"))
    run = run_of(store, {"sequence": tmp_path / "model", "finish": tmp_path / "model"}, "sequence", QUERIES)
    tokens = history_tokens(np.array([0, 2, 3]), np.array([1, 4, 5]), 3)
    lists = pa.ListArray.from_arrays(pa.array(tokens.offsets, pa.int32()), pa.array(tokens.values))
    part = write_part(store, "sequence/queries/0", pa.table({"row": [0, 1], "tokens": lists}))
    run.commit(Kind.SEQUENCE).tables["queries"] = [part.to_json()]
    check(measure_latency(run, 1, np.array([0, 1]), pairs=20, confidence=0.95), 20)
