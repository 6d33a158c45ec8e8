"""The encoder of embedding actors: the vectors of `Encoder.encode`, from storage to storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from cluster.errors import ConfigError
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32, vectors_to_column, write_part
from training.encoders.adapter import new_adapter_folder
from training.encoders.compute.packed import PackedLinear, cpu_has_bfloat16
from training.encoders.load import load_encoder
from training.encoders.part_encoder import MakeEncoder
from training.encoders.tokens.features import Vectors

ROWS = 90


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A new adapter whose residual path is not its whole answer."""
    (tmp_path / "adapter").mkdir()
    new_adapter_folder(tmp_path / "adapter", 24, 48, 0)
    encoder = load_encoder(tmp_path / "adapter")
    state = {
        name: value + 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        for name, value in encoder.state_dict().items()
    }
    (tmp_path / "moved").mkdir()
    encoder.save(tmp_path / "moved", state)
    return tmp_path / "moved"


def make(tmp_path: Path, folder: Path, *, bfloat16: bool = False) -> tuple[MakeEncoder, Store, F32]:
    store = Store(str(tmp_path / "store"))
    values = np.random.default_rng(0).normal(size=(ROWS, 24)).astype(np.float32)
    write_part(
        store, "features/part-00000.parquet", pa.table({"row": np.arange(ROWS), "vector": vectors_to_column(values)}), first_row=0
    )
    files = upload_folder(folder, store, "models/adapter")
    return MakeEncoder(store, files, "models/adapter", 1, False, bfloat16, 16), store, values


def test_a_part_gets_the_vectors_of_the_plain_encoder(tmp_path: Path, adapter: Path) -> None:
    maker, store, values = make(tmp_path, adapter)
    done: list[int] = []
    before = torch.get_num_threads()
    got = maker()(store, "features/part-00000.parquet", done.append)
    torch.set_num_threads(before)
    np.testing.assert_allclose(got, load_encoder(adapter).encode(Vectors(values)), atol=1e-5)
    assert done[-1] == ROWS
    assert got.tobytes() == maker()(store, "features/part-00000.parquet", done.append).tobytes()


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 instructions")
def test_bfloat16_moves_vectors_by_its_rounding_only(tmp_path: Path, adapter: Path) -> None:
    maker, store, values = make(tmp_path, adapter, bfloat16=True)
    got = maker()(store, "features/part-00000.parquet", lambda rows: None)
    want = load_encoder(adapter).encode(Vectors(values))
    assert got.dtype == np.float32
    assert 0 < float(np.abs(got - want).max()) < 0.02
    assert float((got * want).sum(axis=1).min()) > 0.999


def test_bfloat16_without_instructions_for_it_is_refused(tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, *_ = make(tmp_path, adapter, bfloat16=True)
    monkeypatch.setattr("training.encoders.compute.packed.cpu_has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"mining\.embedding_precision"):
        maker()


def test_the_layers_of_an_actor_are_packed(tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, product = [], PackedLinear.forward

    def seen(layer: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return product(layer, x)

    monkeypatch.setattr(PackedLinear, "forward", seen)
    maker, store, _ = make(tmp_path, adapter)
    maker()(store, "features/part-00000.parquet", lambda rows: None)
    assert set(shapes) == {(16, 24), (16, 48), (ROWS % 16, 24), (ROWS % 16, 48)}
