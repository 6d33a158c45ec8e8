"""Base vectors of another run under the same output: when they are copied, and when they are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger, Outcome
from cluster.errors import ClusterError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.stages.siblings import MADE_BY, Vectors, copy_parts, siblings_with

if TYPE_CHECKING:
    from cluster.session.resources import ClusterSize
    from tests.jobs.conftest import Case

VERSIONS = {"hardmine": "1", "torch": "2"}


def stage(store: Store, name: str, values: list[int], figures: dict[str, object]) -> Commit:
    def work(folder: str) -> Outcome:
        return Outcome(tables={"corpus": [write_part(store, f"{folder}/corpus/p", pa.table({"a": values}))]}, figures=figures)

    return Ledger(store).stage(name, inputs={"settings": 1}, work=work, folder=name)


def embedded(store: Store, *, tokens: list[int] | None = None, versions: dict[str, str] | None = None) -> Vectors:
    """A run with its tokens and vectors; what a run with the same is looking for."""
    features = stage(store, "tokens", tokens or [1, 2, 3], {})
    commit = stage(store, "embed-c0ffee", [4, 5], {MADE_BY: versions or VERSIONS})
    return Vectors(commit.name, commit.key, VERSIONS, features, ["corpus"])


def names(store: Store, wanted: Vectors) -> list[str]:
    return [run.root.rpartition("/")[2] for run, _ in siblings_with(store, wanted)]


@pytest.fixture(params=["disk", "s3"])
def below_output(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Store]:
    """A folder below the output, as a store."""
    if request.param == "disk":
        return lambda name: Store(str(tmp_path / name))
    bucket, endpoint = request.getfixturevalue("s3_bucket"), request.getfixturevalue("s3_endpoint")
    return lambda name: Store(f"{bucket}/runs/{name}", StorageSettings(endpoint=endpoint, attempts=2))


def test_runs_with_the_same_texts_model_and_versions_are_siblings(below_output: Callable[[str], Store]) -> None:
    wanted = embedded(below_output("first"))
    embedded(below_output("second"))
    below_output("data").write_bytes("corpus.parquet", b"no run")
    below_output("").write_bytes("a-file", b"no folder")
    assert names(below_output("third"), wanted) == ["first", "second"]
    assert names(below_output("first"), wanted) == ["second"], "a run is no sibling of itself"
    assert names(below_output("elsewhere/third"), wanted) == []


def test_an_output_that_may_not_be_listed_has_no_siblings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = embedded(Store(str(tmp_path / "first")))

    def denied(*_: object) -> list[str]:
        raise ClusterError("access denied")

    monkeypatch.setattr(Store, "folders", denied)
    assert names(Store(str(tmp_path / "second")), wanted) == []


def spoil_commit(run: Path) -> None:
    path = run / "commits/embed-c0ffee.json"
    path.write_text(path.read_text().replace('"rows"', '"raws"'))


def spoil_record(run: Path) -> None:
    (run / "commits/tokens.json").write_text("{")


@pytest.mark.parametrize(
    "change",
    [
        lambda run: (run / "commits/embed-c0ffee.json").unlink(),
        lambda run: (run / "commits/tokens.json").unlink(),
        spoil_commit,
        spoil_record,
    ],
    ids=["half-written", "without its texts", "damaged", "texts damaged"],
)
def test_a_run_that_cannot_be_trusted_is_left_out(tmp_path: Path, change: Callable[[Path], None]) -> None:
    wanted = embedded(Store(str(tmp_path / "first")))
    assert names(Store(str(tmp_path / "second")), wanted) == ["first"]
    change(tmp_path / "first")
    assert names(Store(str(tmp_path / "second")), wanted) == []


def test_equal_keys_are_not_enough(tmp_path: Path) -> None:
    wanted = embedded(Store(str(tmp_path / "first")))
    embedded(Store(str(tmp_path / "others/texts")), tokens=[1, 2, 4])  # as another version may read the same file
    embedded(Store(str(tmp_path / "others/versions")), versions=VERSIONS | {"torch": "3"})
    assert names(Store(str(tmp_path / "others/mine")), wanted) == []
    embedded(Store(str(tmp_path / "others/same")))
    assert names(Store(str(tmp_path / "others/mine")), wanted) == ["same"]
    assert names(Store(str(tmp_path / "others/mine")), replace(wanted, key="another")) == []
    assert names(Store(str(tmp_path / "others/mine")), replace(wanted, tables=["corpus", "queries"])) == []


def test_parts_are_checked_while_they_are_copied(tmp_path: Path) -> None:
    first, second = Store(str(tmp_path / "first")), Store(str(tmp_path / "second"))
    embedded(first)
    commit = Ledger(first).find("embed-c0ffee")
    assert commit is not None
    parts = commit.parts("corpus")
    assert copy_parts(first, second, parts)
    assert second.read_bytes(parts[0].path) == first.read_bytes(parts[0].path)
    path = tmp_path / "first" / parts[0].path
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    assert not copy_parts(first, Store(str(tmp_path / "third")), parts)
    assert not (tmp_path / "third" / parts[0].path).exists()
    path.unlink()
    assert not copy_parts(first, second, parts)


@pytest.mark.cluster
def test_a_second_run_on_the_same_data_embeds_nothing_and_does_not_need_the_first(ray_case: Case, ray_local: ClusterSize) -> None:
    out = ray_case.folder / "out"

    def vectors(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((out / name).glob("embeddings/*/*/*.parquet"))}

    first = ray_case.run(command="embed")
    assert (first.code, "copied" in first.err) == (0, False), first.err
    second = ray_case.run("name=second", command="embed")
    assert (second.code, f"  vectors copied from {out / 'run'}, which" in second.err) == (0, True), second.err
    assert vectors("second") == vectors("run")
    other = ray_case.run("name=other", "encoder.query_prompt='find '", command="embed")
    assert (other.code, "copied" in other.err) == (0, False), "other texts, other vectors"
    shutil.rmtree(out / "run")
    assert ray_case.hardmine("verify", str(out / "second")).code == 0
    assert ray_case.run("name=second", command="embed").code == 0

    for path in (out / "second").glob("embeddings/*/corpus/*.parquet"):
        path.write_bytes(path.read_bytes().replace(b"row", b"rwo", 1))
    third = ray_case.run("name=third", command="embed")
    assert (third.code, "copied" in third.err) == (0, False), "a damaged sibling is left out"
    assert ray_case.hardmine("verify", str(out / "third")).code == 0
