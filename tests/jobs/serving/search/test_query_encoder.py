"""Queries of models that read no texts: an adapter on given vectors, a sequence encoder, and no model at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import DataError
from jobs.serving.search.query_encoder import query_encoder
from training.encoders.adapter import AdapterEncoder, export_with_base, new_adapter_folder
from training.encoders.sequence import SequenceEncoder, new_sequence_folder
from training.encoders.tokens.features import Vectors

RNG = np.random.default_rng(4)


@pytest.mark.slow
def test_an_adapter_reads_the_vector_that_its_data_had(tmp_path: Path) -> None:
    new_adapter_folder(tmp_path / "adapter", 8, 16, 3)
    adapter = AdapterEncoder.load(tmp_path / "adapter")
    export_with_base(adapter, None, tmp_path / "model")
    vectors = RNG.standard_normal((3, 8)).astype(np.float32)
    encode = query_encoder(tmp_path / "model", "vectors", 8)
    got = encode([json.dumps(vector.tolist()) for vector in vectors])
    np.testing.assert_allclose(got, adapter.encode(Vectors(vectors)), atol=2e-6)


def test_a_sequence_encoder_reads_item_ids(tmp_path: Path) -> None:
    names = [f"i{n}" for n in range(6)]
    new_sequence_folder(tmp_path, RNG.standard_normal((6, 8)).astype(np.float32), names, hidden=8, max_length=4, seed=1)
    encode = query_encoder(tmp_path, "histories", 8)
    encoder = SequenceEncoder.load(tmp_path)
    want = encoder.encode(encoder.read([["i1", "i4"], ["i2"]]))
    np.testing.assert_array_equal(encode(["i1, i4", '["i2"]']), want)
    with pytest.raises(DataError, match=r"expected histories of the 6 items.*'i9'"):
        encode(["i9"])
    with pytest.raises(DataError, match="an empty history"):
        encode([" , "])


def test_without_a_model_a_query_is_its_vector_of_unit_length() -> None:
    encode = query_encoder(None, "vectors", 3)
    np.testing.assert_allclose(encode(["[3, 0, 4]"]), [[0.6, 0.0, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("query", ["a text", "[1, 2]", "[0, 0, 0]", '[1, 2, "3"]', "[1, 2, NaN]", "[1, 2, true]", "[[1], 2, 3]"])
def test_what_is_no_vector_is_told_what_one_is(query: str) -> None:
    with pytest.raises(DataError, match=r"expected a JSON list of 3 numbers, not all 0, found"):
        query_encoder(None, "vectors", 3)([query])
    with pytest.raises(DataError, match="expected a JSON list as the query"):
        query_encoder(None, "vectors", 3)(["[1, 2"])
