"""Mistakes about a run that is there, its storage, its writer and the order of stages; and how errors come back from Ray."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from cluster.errors import ConfigError
from cluster.lease import Lease, Owner
from jobs.record.stages import Kind
from jobs.run.rounds import FUNCTIONS

ROOT = Path(__file__).parents[2]
UNKNOWN_COLUMN = [{"column": "nothing", "keep": "disjoint"}]
HOLD_A_LEASE = """
import sys, time
import cluster.lease
from cluster.storage.store import Store
cluster.lease.BEAT_S = 0.1
with cluster.lease.Lease(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def begun(case: Any) -> Any:
    """A run whose tables are committed: it stopped at a rule on a column that the corpus has not."""
    case.set("mining.rules", UNKNOWN_COLUMN)
    assert case.run().code == 2
    assert (case.folder / "out/run/commits/ingest.json").exists()
    return case


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials for S3 anywhere, and no endpoint."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")


# what a run left


def test_other_data_in_the_same_folder(begun: Any, refused: Any) -> None:
    begun.items[0]["text"] = "changed"
    refused(begun.run(), 2, ["out/run", "another data", "another `name` or `output`"])


def test_another_encoder_in_the_same_folder(case: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise ConfigError("stopped by the test, after the base model was committed")

    monkeypatch.setitem(FUNCTIONS, Kind.TOKENS, stop)
    assert "stopped by the test" in case.run().message
    case.set("encoder", {"kind": "adapter"})
    refused(case.run(), 2, ["out/run", "another encoder", "'static'", "'adapter'", "another `name`"])


def test_bad_data_may_be_corrected_and_run_again(case: Any, refused: Any) -> None:
    case.items[5]["id"] = "i2"
    refused(case.run(), 2, ["'i2'"])
    case.items[5]["id"] = "i5"
    case.set("mining.rules", UNKNOWN_COLUMN)
    refused(case.run(), 2, ["mining.rules[0].column"])


def test_a_wrong_model_may_be_corrected_and_run_again(case: Any, refused: Any) -> None:
    case.set("encoder.model", "./nowhere")
    refused(case.run(), 2, ["no folder"])
    case.set("encoder.model", "./nowhere_else")
    refused(case.run(), 2, ["no folder", "nowhere_else"])


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_status_of_a_folder_that_is_no_run(case: Any, refused: Any, words: list[str]) -> None:
    case.write()
    refused(case.hardmine("status", str(case.folder), *words), 2, ["is not a run", "found corpus.jsonl", "<output>/<name>"])


def test_status_of_nothing(case: Any, refused: Any) -> None:
    refused(case.hardmine("status", str(case.folder / "nowhere")), 2, ["nowhere is not a run", "nothing is there"])


@pytest.mark.parametrize("content", [b'{"name": ', b"[]", b'{"name": "ingest", "magic": 1}'])
def test_a_damaged_commit_is_told_and_its_stage_is_made_anew(begun: Any, refused: Any, content: bytes) -> None:
    path = begun.folder / "out/run/commits/ingest.json"
    path.write_bytes(content)
    refused(begun.hardmine("status", str(begun.folder / "out/run")), 2, [str(path), "edited or damaged"])
    told(begun, path, "edited or damaged")


def test_damaged_identity(begun: Any, refused: Any) -> None:
    (begun.folder / "out/run/identity.json").write_bytes(b"{")
    refused(begun.run(), 2, ["identity.json", "edited or damaged"])


def test_a_committed_file_that_was_deleted_is_made_anew(begun: Any) -> None:
    part = next((begun.folder / "out/run/tables").rglob("corpus/part-00000.parquet"))
    part.unlink()
    told(begun, part, "is missing, but commit ingest lists it")


def test_a_committed_file_that_was_cut_off_is_made_anew(begun: Any) -> None:
    part = next((begun.folder / "out/run/tables").rglob("labels/part-00000.parquet"))
    whole = part.read_bytes()
    part.write_bytes(whole[:50])
    told(begun, part, "has 50 bytes, but commit ingest lists it with")
    assert part.read_bytes() == whole


def told(begun: Any, path: Path, word: str) -> None:
    """The run says once that something is made anew, and ends as it did before; then it is whole."""
    first, second = begun.run(), begun.run()
    (line,) = [line for line in first.err.splitlines() if "done now" in line]
    assert line.startswith("! ")
    assert str(path) in line
    assert word in line
    assert path.exists()
    assert "done now" not in second.err
    assert (first.code, first.message) == (second.code, second.message)


def test_output_is_a_file(case: Any, refused: Any) -> None:
    case.files["out"] = b"x"
    refused(case.run(), 2, ["out/run", "a file where a folder should be"])


# the writer


def test_another_writer_is_alive(case: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run.driver.Lease", functools.partial(Lease, watch_s=20.0))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LEASE, str(case.folder / "out/run")], env=environment, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            refused(case.run(), 2, ["being written by", f"process {other.pid} on", "one writer", "--takeover"])
        finally:
            other.kill()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, typer.Abort])
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_ctrl_c_is_one_line_and_exit_code_130(
    case: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException], words: tuple[str, ...]
) -> None:
    def stop(*_: Any) -> None:
        raise interruption

    monkeypatch.setitem(FUNCTIONS, Kind.TOKENS, stop)
    refused(case.run(*words), 130, ["stopped; what is committed is kept, the same command resumes"])
    assert (case.folder / "out/run/commits/base.json").exists()
    assert not (case.folder / "out/run/writer.json").exists(), "the lease is given back"


def test_ctrl_c_before_a_run_starts_is_the_same(case: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.config.config.load_config", stop)
    refused(case.run(), 130, ["stopped; what is committed is kept, the same command resumes"])


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "in the background"])
def test_a_driver_that_loses_its_lease_is_no_ctrl_c(
    case: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    lease, other = case.folder / "out/run/writer.json", json.dumps(vars(Owner.here()))

    def lose(*_: Any) -> None:
        for _attempt in range(600):  # a beat at the same moment may write over it; interrupted at the next one
            lease.with_name("other.json").write_text(other)
            lease.with_name("other.json").replace(lease)
            time.sleep(0.05)

    monkeypatch.setattr("cluster.lease.BEAT_S", 0.05)
    monkeypatch.setitem(FUNCTIONS, Kind.BASE, lose)
    before = signal.signal(signal.SIGINT, handler)
    try:
        answer = case.run()
    finally:
        signal.signal(signal.SIGINT, before)
    refused(answer, 3, ["this driver lost", f"process {os.getpid()} on"])


# the order of stages


@pytest.mark.parametrize(
    ("stage", "number", "words"),
    [
        ("mine", "1", ["round-01-mine needs round-00-train", "not committed", "hardmine run"]),
        ("hits", "1", ["round-01-search needs baseline-hits", "not committed"]),
        ("train", "1", ["round-01-train needs baseline-hits", "not committed"]),
        ("evaluate", "0", ["round-00-evaluate needs baseline-evaluate", "not committed"]),
        ("embed", "0", ["there is no model of round 0 yet", "hardmine train"]),
        ("mine", "7", ["round-07-mine is not a stage", "--round of 1 (", "rounds.mined = 1"]),
        ("mine", "0", ["round-00-mine is not a stage", "--round of 1 (", "round 0 mines nothing"]),
        ("hits", "0", ["round-00-search is not a stage", "--round of 1 ("]),
        ("train", "-1", ["is not a stage", "--round of 0 to 1 ("]),
        ("embed", "2", ["round-02-embed is not a stage", "--round of -1 to 1 ("]),
        ("evaluate", "7", ["round-07-evaluate is not a stage", "--round of -1 to 1 ("]),
    ],
)
def test_stage_out_of_order(case: Any, refused: Any, stage: str, number: str, words: list[str]) -> None:
    refused(case.run("--round", number, command=stage), 2, words)


@pytest.mark.parametrize(
    ("stage", "rounds", "expected"),
    [
        ("mine", {"mined": 3}, "--round of 1 to 3 ("),
        ("mine", {"mined": 0}, "--round of none ("),
        ("train", {"mined": 3, "warmup_epochs": 0}, "--round of 1 to 3 ("),
        ("evaluate", {"mined": 2, "warmup_epochs": 0}, "--round of -1, 1, 2 ("),
    ],
)
def test_a_round_out_of_range_is_told_the_rounds_of_its_own_stage(
    case: Any, refused: Any, stage: str, rounds: dict[str, int], expected: str
) -> None:
    case.set("rounds", rounds)
    refused(case.run("--round", "7", command=stage), 2, [expected])


# object storage


def on_s3(case: Any, output: str, endpoint: str) -> None:
    case.set("output", output)
    case.set("storage.endpoint", endpoint)


def test_bucket_that_does_not_exist(case: Any, refused: Any, s3_endpoint: str) -> None:
    on_s3(case, "s3://no-such-bucket/runs", s3_endpoint)
    refused(case.run(), 2, ["s3://no-such-bucket/runs/run", "bucket does not exist", "create it", "`output`"])


def test_data_in_a_bucket_that_does_not_exist(case: Any, refused: Any, s3_endpoint: str) -> None:
    case.set("data.corpus", "s3://no-such-bucket/corpus.parquet")
    case.set("storage.endpoint", s3_endpoint)
    refused(case.run(), 2, ["s3://no-such-bucket/corpus.parquet"])


def test_data_that_is_not_in_the_bucket(case: Any, refused: Any, s3_endpoint: str, s3_bucket: str) -> None:
    on_s3(case, f"{s3_bucket}/runs", s3_endpoint)
    case.set("data.corpus", f"{s3_bucket}/corpus.parquet")
    refused(case.run(), 2, ["no file", f"{s3_bucket}/corpus.parquet", "[data]"])


def test_status_in_a_bucket_that_does_not_exist(case: Any, refused: Any, s3_endpoint: str) -> None:
    refused(case.hardmine("status", "s3://no-such-bucket/run", "--endpoint", s3_endpoint), 2, ["s3://no-such-bucket/run"])


@pytest.mark.usefixtures("no_keys")
def test_endpoint_that_does_not_answer(case: Any, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    on_s3(case, "s3://bucket/runs", "http://127.0.0.1:9")
    refused(case.run(), 3, ["s3://bucket/runs/run", "at http://127.0.0.1:9", "storage.endpoint", "run the same command again"])
    refused(case.hardmine("status", "s3://bucket/runs/run", "--endpoint", "http://127.0.0.1:9"), 3, ["storage.endpoint"])


@pytest.mark.usefixtures("no_keys")
def test_no_credentials(case: Any, refused: Any) -> None:
    on_s3(case, "s3://bucket/runs", "http://127.0.0.1:9")
    refused(case.run(), 2, ["no usable credentials", "AWS_ACCESS_KEY_ID", "storage.profile"])


@pytest.mark.usefixtures("no_keys")
def test_unknown_profile(case: Any, refused: Any) -> None:
    on_s3(case, "s3://bucket/runs", "http://127.0.0.1:9")
    case.set("storage.profile", "nobody")
    refused(case.run(), 2, ["nobody", "no usable credentials", "storage.profile"])


# the model


@pytest.mark.parametrize(
    ("kind", "module", "words"),
    [
        ("static", "sentence_transformers.models.Transformer", ["Transformer module", '"static" needs StaticEmbedding']),
        ("transformer", "sentence_transformers.models.StaticEmbedding", ["StaticEmbedding module", '"transformer" needs']),
    ],
)
def test_model_of_another_kind(case: Any, refused: Any, kind: str, module: str, words: list[str]) -> None:
    case.files["model/modules.json"] = json.dumps([{"idx": 0, "name": "0", "path": "", "type": module}]).encode()
    case.set("encoder", {"kind": kind, "model": "model"})
    refused(case.run(), 2, ["encoder.model", str(case.folder / "model"), *words, "change encoder.kind"])


BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{"}, ["expected JSON", "config.json", "mend that file"]),
        ({"config.json": json.dumps({"model_type": "bert"}).encode()}, ["weights", "lack", "BertModel"]),
        ({"vocab.txt": None}, ["expected a tokenizer", "vocab.txt", "a complete model folder"]),
        ({"model.safetensors": b"rubbish" * 99}, ["cannot be read", "SafetensorError", "download it again"]),
        ({"model.safetensors": None}, ["encoder.model", "complete model folder"]),
        ({"config.json": json.dumps(BERT | {"model_type": "blorp"}).encode()}, ["cannot be read", "blorp"]),
    ],
)
def test_damaged_model_folder(case: Any, refused: Any, files: dict[str, bytes | None], words: list[str]) -> None:
    good = {
        "config.json": json.dumps(BERT).encode(),
        "vocab.txt": b"[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\nthing\n",
        "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    }
    case.files |= {f"model/{name}": content for name, content in (good | files).items() if content is not None}
    case.set("encoder", {"kind": "transformer", "model": "model"})
    refused(case.run(), 2, ["encoder.model", str(case.folder / "model"), *words])


def test_model_that_is_not_on_the_hub(case: Any, refused: Any) -> None:
    case.set("encoder", {"kind": "transformer", "model": "nobody/nothing"})
    refused(case.run(), 2, ["encoder.model", "'nobody/nothing' is no folder", "check the name"])


# through Ray: the same errors, raised in a worker


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_errors_come_back_whole_from_a_worker(ray_case: Any, refused: Any) -> None:
    good = list(ray_case.items)
    ray_case.items[5]["id"] = "i2"
    refused(ray_case.run(), 2, ["1 id(s) of items", "'i2'", "row 3 and"])
    ray_case.items, ray_case.settings["name"] = good[:5], "second"
    refused(ray_case.run(), 2, ["qrels.jsonl, row 6", "'i5'", "5 label(s)"])
    ray_case.files["corpus.jsonl"], ray_case.settings["name"] = b'{"id": "i0", "text": "x"}\n{"id"\n', "third"
    refused(ray_case.run(), 2, ["corpus.jsonl, line 2", "one JSON object"])


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_what_the_cluster_cannot_do(ray_case: Any, refused: Any) -> None:
    ray_case.set("cluster.device", "gpu")
    import ray

    if not ray.cluster_resources().get("GPU"):
        refused(ray_case.run(), 2, ["cluster.device", "no GPU"])
    ray_case.set("cluster.device", "cpu")
    ray_case.set("cluster.shards", 13)
    refused(ray_case.run(), 2, ["cluster.shards = 13", "12 items"])
    ray_case.set("cluster.shards", None)
    ray_case.set("encoder.model", "./nowhere")
    ray_case.set("name", "other")
    refused(ray_case.run(), 2, ["encoder.model", "no folder", "nowhere"])
