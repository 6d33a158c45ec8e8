"""Records: what was written comes back; what was edited or damaged never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ArtifactError, DamagedObject
from cluster.storage.records import read_if_there, read_record, write_record
from cluster.storage.store import Store

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@given(value=st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON, max_size=4))
def test_a_record_comes_back_as_it_was_written(value: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(str(tmp_path_factory.getbasetemp()))
    write_record(store, "a.json", value)
    assert read_record(store, "a.json") == value


def test_numbers_as_keys_and_tuples_become_what_json_makes_of_them(store: Store) -> None:
    write_record(store, "a.json", {"by_step": {1: (2, 3)}})
    assert read_record(store, "a.json") == {"by_step": {"1": [2, 3]}}


def test_a_record_that_was_edited_damaged_or_has_no_digest_is_told(store: Store) -> None:
    write_record(store, "a.json", {"recall": 0.25})
    whole = store.read_bytes("a.json")
    for edited in (whole.replace(b"0.25", b"0.35"), whole[:-3], b"", b"[]", b"null", b'{"recall": 0.25}', b"\xff"):
        store.write_bytes("a.json", edited)
        with pytest.raises(DamagedObject, match=r"a\.json is not what .* edited or damaged"):
            read_record(store, "a.json")
        with pytest.raises(DamagedObject):
            read_if_there(store, "a.json")


def test_a_record_that_is_missing_is_told_or_none(store: Store) -> None:
    with pytest.raises(ArtifactError, match="no such object"):
        read_record(store, "a.json")
    assert read_if_there(store, "a.json") is None
