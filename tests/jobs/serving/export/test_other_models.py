"""Exports of models that read no texts: an adapter on the data's own vectors, those vectors themselves, a sequence encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Commit, Outcome
from cluster.errors import DataError
from cluster.storage.model_folders import fetch_folder, folder_digest, upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32
from jobs.record.stages import BASELINE, Kind, ModelName, Stage
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_run
from jobs.serving.search.opened import open_export
from tests.support.shipped_run import DIMENSION, ShippedRun
from training.encoders.adapter import AdapterEncoder, export_with_base, new_adapter_folder
from training.encoders.sequence import SequenceEncoder, new_sequence_folder
from training.encoders.tokens.features import Vectors


class OtherRun(ShippedRun):
    """A run whose items have vectors of their own, made up from their texts."""

    def given(self, texts: list[str]) -> F32:
        """Vectors that came with the data."""
        rows = [np.random.default_rng(list(text.encode())).standard_normal(DIMENSION) for text in texts]
        return np.array(rows, np.float32)

    def folder_commit(self, stage: Stage, make: Any, **figures: Any) -> Commit:
        """A commit of a model's folder."""
        import tempfile

        def work(folder: str) -> Outcome:
            with tempfile.TemporaryDirectory() as scratch:
                make(Path(scratch))
                files = upload_folder(Path(scratch), self.store, folder)
            return Outcome(files=files, figures={"prefix": folder, "digest": folder_digest(files, folder)} | figures)

        return self.commit(stage, work)


class AdapterRun(OtherRun):
    """An adapter on them."""

    def _model(self, kind: Kind, of: ModelName | None, *_: Any) -> None:
        if kind is Kind.BASE:
            self.commit(Stage(kind), lambda _: Outcome(figures={"dimension": DIMENSION}))
        else:
            self.folder_commit(Stage(kind, of), self._adapter)

    def _adapter(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        new_adapter_folder(folder, DIMENSION, 16, 5)
        state = load_file(folder / "adapter.safetensors")
        state["down.weight"] = torch.randn(state["down.weight"].shape, generator=torch.manual_seed(1))
        save_file(state, folder / "adapter.safetensors")

    def adapter(self) -> AdapterEncoder:
        """What round 1 trained."""
        commit = self.ledger.find(Stage(Kind.TRAIN, ModelName(1)).name)
        assert commit is not None
        return AdapterEncoder.load(fetch_folder(self.store, commit.files, commit.figures["prefix"]))

    def encoder(self, name: ModelName) -> Any:
        if name != BASELINE:
            return lambda texts: self.adapter().encode(Vectors(self.given(texts)))
        return lambda texts: (given := self.given(texts)) / np.linalg.norm(given, axis=1, keepdims=True)

    def finished_files(self, best: Commit) -> dict[str, dict[str, Any]]:
        import tempfile

        self.prefix = "model/served"
        with tempfile.TemporaryDirectory() as scratch:
            export_with_base(self.adapter(), None, Path(scratch))
            return upload_folder(Path(scratch), self.store, self.prefix)


@pytest.mark.slow
def test_an_adapter_on_given_vectors_and_those_vectors_are_exported_and_asked_with_vectors(tmp_path: Path) -> None:
    run = AdapterRun(tmp_path / "runs" / "shop", items=60, queries=8, kind="adapter")
    store, home = run.write(), Store(str(tmp_path / "exports"))
    for number, name in ((None, ModelName(1)), (-1, BASELINE)):
        exported = export_run(store, home, Budget(), number=number)
        assert (exported.stamp.reads, bool(exported.stamp.model)) == ("vectors", number is None)
        opened = open_export(exported.path)
        got = opened.encode([json.dumps(vector.tolist()) for vector in run.given(run.query_texts)])
        want = run.encoder(name)(run.query_texts)
        np.testing.assert_allclose(got, want, atol=3e-6)
        rows = opened.search(got, 3).rows
        np.testing.assert_array_equal(rows, np.argsort(-(want @ run.encoder(name)(run.texts).T), axis=1, kind="stable")[:, :3])
        with pytest.raises(DataError, match=f"expected a JSON list of {DIMENSION} numbers"):
            opened.encode(["a text"])


class SequenceRun(OtherRun):
    """A sequence encoder on them."""

    def _model(self, kind: Kind, of: ModelName | None, *_: Any) -> None:
        if kind is Kind.BASE:
            self.commit(Stage(kind), lambda _: Outcome(figures={"dimension": DIMENSION}))
        for stage in [Stage(Kind.SEQUENCE)] if kind is Kind.BASE else [Stage(kind, of)]:
            self.folder_commit(stage, lambda folder, seed=int(kind is Kind.BASE): self._encoder(folder, seed))

    def _encoder(self, folder: Path, seed: int) -> None:
        names = [f"i{n}" for n in range(self.items)]
        new_sequence_folder(folder, self.given(self.texts), names, hidden=8, max_length=6, seed=seed)

    def model(self, name: ModelName) -> SequenceEncoder:
        """The encoder of a round."""
        commit = self.ledger.find((Stage(Kind.SEQUENCE) if name == BASELINE else Stage(Kind.TRAIN, name)).name)
        assert commit is not None
        return SequenceEncoder.load(fetch_folder(self.store, commit.files, commit.figures["prefix"]))

    def encoder(self, name: ModelName) -> Any:
        from training.encoders.sequence import item_tokens

        model = self.model(name)
        return lambda texts: model.encode(item_tokens(0, len(texts)))


def test_a_sequence_encoder_is_exported_and_asked_with_histories(tmp_path: Path) -> None:
    run = SequenceRun(tmp_path / "runs" / "shop", items=60, queries=8, kind="sequence")
    store, home = run.write(), Store(str(tmp_path / "exports"))
    for number, name in ((None, ModelName(1)), (-1, BASELINE)):
        exported = export_run(store, home, Budget(), number=number)
        assert exported.stamp.reads == "histories"
        opened, model = open_export(exported.path), run.model(name)
        got = opened.encode(["i3, i7", "i9"])
        np.testing.assert_array_equal(got, model.encode(model.read([["i3", "i7"], ["i9"]])))
        assert (opened.search(got, 3).rows >= 0).all()
