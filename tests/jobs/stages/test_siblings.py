"""Base vectors of other runs below the same output: which are copied, and which are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger, Outcome
from cluster.errors import ClusterError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.stages.embed.siblings import copy_parts, known_vectors, origin

if TYPE_CHECKING:
    from cluster.session.resources import ClusterSize
    from tests.jobs.conftest import Case

VERSIONS = {"hardmine": "1", "torch": "2"}
INPUTS = {"model": "m", "dtype": "float32", "bfloat16": False, "budget": 512}


def stage(store: Store, name: str, parts: list[list[int]], inputs: dict[str, Any], figures: dict[str, Any]) -> Commit:
    def work(folder: str) -> Outcome:
        tables = [pa.table({"a": values}) for values in parts]
        written = [write_part(store, f"{folder}/corpus/p{n}", table, first_row=2 * n) for n, table in enumerate(tables)]
        return Outcome(tables={"corpus": written}, figures=figures)

    return Ledger(store).stage(name, inputs=inputs, work=work, folder=name)


def embedded(
    store: Store, *, tokens: list[list[int]] | None = None, versions: dict[str, str] = VERSIONS, **inputs: Any
) -> Commit:
    """A run with the tokens and the vectors of two parts of texts; its tokens."""
    features = stage(store, "tokens", tokens or [[1, 2], [3, 4]], {}, {})
    values = INPUTS | {"features": features.key} | inputs
    stage(store, "embed-c0ffee", [[5, 6], [7, 8]], values, origin(versions, features, ["corpus"]))
    return features


def known(store: Store) -> dict[str, list[int]]:
    """Run -> the first rows of the parts of vectors that it knows."""
    return {
        run.root.rpartition("/")[2]: sorted(part.first_row for part in parts.values())
        for run, parts in known_vectors(store, INPUTS, VERSIONS)
    }


@pytest.fixture(params=["disk", "s3"])
def below_output(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Store]:
    """A folder below the output, as a store."""
    if request.param == "disk":
        return lambda name: Store(str(tmp_path / name))
    bucket, endpoint = request.getfixturevalue("s3_bucket"), request.getfixturevalue("s3_endpoint")
    return lambda name: Store(f"{bucket}/runs/{name}", StorageSettings(endpoint=endpoint, attempts=2))


def test_every_run_with_the_same_model_and_versions_knows_vectors_the_own_one_first(below_output: Callable[[str], Store]) -> None:
    for name in ("first", "second", "third"):
        embedded(below_output(name))
    below_output("data").write_bytes("corpus.parquet", b"no run")
    below_output("").write_bytes("a-file", b"no folder")
    assert list(known(below_output("second")).items()) == [("second", [0, 2]), ("first", [0, 2]), ("third", [0, 2])]
    assert list(known(below_output("new"))) == ["first", "second", "third"]
    assert known(below_output("elsewhere/new")) == {}


def test_an_output_that_may_not_be_listed_leaves_the_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded(Store(str(tmp_path / "first")))
    embedded(Store(str(tmp_path / "second")))

    def denied(*_: object) -> list[str]:
        raise ClusterError("access denied")

    monkeypatch.setattr(Store, "folders", denied)
    assert list(known(Store(str(tmp_path / "second")))) == ["second"]


@pytest.mark.parametrize(
    "change",
    [{"versions": VERSIONS | {"torch": "3"}}, {"model": "another"}, {"dtype": "float16"}, {"bfloat16": True}, {"budget": 1024}],
    ids=str,
)
def test_another_model_precision_or_version_is_not_the_same(tmp_path: Path, change: dict[str, Any]) -> None:
    embedded(Store(str(tmp_path / "first")), **change)
    assert known(Store(str(tmp_path / "second"))) == {}


def test_parts_are_known_by_the_content_of_what_was_read(tmp_path: Path) -> None:
    features = embedded(Store(str(tmp_path / "first")))
    other = embedded(Store(str(tmp_path / "other/first")), tokens=[[1, 2], [3, 5]])
    ours, theirs = ([part.sha256 for part in commit.parts("corpus")] for commit in (features, other))
    assert [sha256 in ours for sha256 in theirs] == [True, False]
    [(_, parts)] = known_vectors(Store(str(tmp_path / "second")), INPUTS, VERSIONS)
    assert {sha256: part.first_row for sha256, part in parts.items()} == dict(zip(ours, [0, 2], strict=True))


def test_a_run_without_a_whole_commit_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "first/commits/embed-c0ffee.json"
    embedded(Store(str(tmp_path / "first")))
    whole = path.read_text()
    path.write_text(whole.replace('"first_row": 2', '"first_row": 3'))
    assert known(Store(str(tmp_path / "second"))) == {}, "damaged"
    path.unlink()
    assert known(Store(str(tmp_path / "second"))) == {}, "half-written"
    path.write_text(whole)
    assert known(Store(str(tmp_path / "second"))) == {"first": [0, 2]}


def test_parts_are_checked_while_they_are_copied(tmp_path: Path) -> None:
    first, second = Store(str(tmp_path / "first")), Store(str(tmp_path / "second"))
    embedded(first)
    commit = Ledger(first).find("embed-c0ffee")
    assert commit is not None
    one, two = commit.parts("corpus")
    assert copy_parts(first, second, [(one, "new/1"), (two, "new/2")]) == [replace(one, path="new/1"), replace(two, path="new/2")]
    assert second.read_bytes("new/1") == first.read_bytes(one.path)
    assert copy_parts(first, first, [(one, one.path)]) == [one], "the own run's, where they lie"
    path = tmp_path / "first" / one.path
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    assert copy_parts(first, second, [(one, "again/1"), (two, "again/2")]) == [replace(two, path="again/2")]
    assert not second.exists("again/1")
    path.unlink()
    assert copy_parts(first, second, [(one, "again/1")]) == []


@pytest.mark.cluster
def test_a_second_run_on_the_same_data_embeds_nothing_and_does_not_need_the_first(ray_case: Case, ray_local: ClusterSize) -> None:
    out = ray_case.folder / "out"

    def vectors(name: str) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in sorted((out / name).glob("embeddings/*/*/*.parquet"))}

    first = ray_case.run(command="embed")
    assert (first.code, "copied" in first.err) == (0, False), first.err
    second = ray_case.run("name=second", command="embed")
    assert (second.code, f"  vectors of 22 texts copied from {out / 'run'}, which" in second.err) == (0, True), second.err
    assert vectors("second") == vectors("run")
    before = vectors("run")
    other = ray_case.run("name=other", "data.query_text='{text} please'", command="embed")
    assert (other.code, "  vectors of 12 texts copied" in other.err) == (0, True), "the items' texts are the same"
    assert [a == b for a, b in zip(vectors("other").values(), vectors("run").values(), strict=True)] == [True, False]
    shutil.rmtree(out / "run")
    assert ray_case.hardmine("verify", str(out / "second")).code == 0
    assert ray_case.run("name=second", command="embed").code == 0

    for name in ("second", "other"):
        for path in (out / name).glob("embeddings/*/corpus/*.parquet"):
            path.write_bytes(path.read_bytes().replace(b"row", b"rwo", 1))
    third = ray_case.run("name=third", command="embed")
    assert (third.code, "  vectors of 10 texts copied" in third.err) == (0, True), "the damaged part is computed"
    assert vectors("third") == before
    assert ray_case.hardmine("verify", str(out / "third")).code == 0
