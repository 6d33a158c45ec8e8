"""`export --quantize int8`: the query's side of a model of texts in 8 bits, from tokens to a unit vector, as ONNX.

Only queries are encoded by it: the items' vectors are those of the float32 model, so what it changes is a query's vector. Weights
are 8-bit integers with a scale for each output, activations are quantised when they are there (ONNX Runtime's dynamic
quantisation). The file is the whole encoder, pooling and normalisation with it; tokens and prompt are those of `model/`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import ArtifactError, ConfigError, DamagedObject
from cluster.storage.digests import described
from cluster.storage.records import read_record, write_record
from cluster.storage.store import Store
from cluster.tables.tables import F32
from jobs.serving.export.index import RECALL_AT, exact_scores, recall_of
from jobs.serving.search.query_encoder import Encode, query_encoder, tokens_of_texts

if TYPE_CHECKING:
    from torch import Tensor

    from training.encoders.base import Encoder

QUANTIZED, MEASURED = "int8/model.onnx", "int8/measured.json"
INPUTS = ("input_ids", "attention_mask", "pooling_mask")
OPSET = 20
TIMED = 50
"""Queries that are timed one by one, on one thread."""
ASKED = 300
"""Queries that agreement is measured on, at most."""


@dataclass(frozen=True)
class Quantized:
    """What it measured."""

    recall: float
    """Share of the float32 model's ten nearest items that a query in 8 bits finds too, both searched exactly."""
    queries: int
    p50_ms: float
    """Median of one query's encoding on one thread, without tokens."""
    float32_ms: float
    """The same by the float32 model."""
    megabytes: float


def write_quantized(
    export: Store, folder: Path | None, vectors: F32, texts: Sequence[str], floor: float, scratch: Path
) -> Quantized:
    """Write the model in 8 bits; one that a killed export left whole is kept.

    Args:
        folder: of the model.
        vectors: of the items, float32 [N, D].
        texts: queries to measure with.
        floor: the least recall.

    Raises:
        ConfigError: there is no such model or no query to measure with, a package is missing, or the recall is below the floor.
    """
    try:
        values = read_record(export, MEASURED)
        if described(export.read_bytes(QUANTIZED)) == values["file"]:
            return Quantized(**values["measured"])
    except (ArtifactError, DamagedObject):
        pass
    encoder = _encoder(folder)
    if not texts:
        raise ConfigError("--quantize int8 measures its agreement on the run's queries, and there are none; leave it out")
    assert folder is not None
    file = scratch / "int8.onnx"
    _export(encoder, file)
    measured = measure(folder, file, vectors, list(texts[:ASKED]))
    if measured.recall < floor:
        raise ConfigError(
            f"--quantize int8: queries in 8 bits find {measured.recall:.1%} of the ten nearest items of float32 "
            f"({measured.queries} queries), less than --min-recall {floor:g}; lower it, or leave --quantize out"
        )
    data = file.read_bytes()
    export.write_bytes(QUANTIZED, data)
    write_record(export, MEASURED, {"measured": asdict(measured), "file": described(data)})
    return measured


def _encoder(folder: Path | None) -> Encoder:
    """Raises ConfigError: it is not a transformer of texts."""
    from training.encoders.transformer import TransformerEncoder

    encoder = None
    if folder is not None and (folder / "modules.json").exists():
        from training.encoders.load import load_encoder

        encoder = load_encoder(folder)
    if not isinstance(encoder, TransformerEncoder):
        raise ConfigError(
            "--quantize int8 is for a transformer that reads texts and pools its tokens; this model is another one, and fast as "
            "it is; leave --quantize out"
        )
    return encoder


def _export(encoder: Encoder, file: Path) -> None:
    import torch

    try:
        import onnxscript  # noqa: F401  torch needs it and says so in many lines
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ConfigError(
            f'--quantize int8 needs a package that is not installed ({error}): pip install "hardmine[onnx]"'
        ) from error

    class FromTokens(torch.nn.Module):
        """Tokens to unit vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder.eval()

        def forward(self, input_ids: Tensor, attention_mask: Tensor, pooling_mask: Tensor) -> Tensor:
            return self.encoder(  # type: ignore[no-any-return]
                {"input_ids": input_ids, "attention_mask": attention_mask, "pooling_mask": pooling_mask}
            )

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    ids = torch.arange(12).view(2, 6) % 100
    whole = file.with_name("float32.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            FromTokens(),
            (ids, torch.ones_like(ids), torch.ones_like(ids)),
            str(whole),
            input_names=list(INPUTS),
            output_names=["unit_vector"],
            dynamic_shapes=tuple({0: batch, 1: length} for _ in INPUTS),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a step that this graph does not need
    quantize_dynamic(whole, file, weight_type=QuantType.QInt8, per_channel=True)


def measure(folder: Path, file: Path, vectors: F32, texts: list[str]) -> Quantized:
    """Agreement and speed on some queries."""
    import faiss
    import torch

    sides = {"float32": query_encoder(folder, "texts", vectors.shape[1]), "int8": quantized_encoder(folder, file)}
    full, small = (encode(texts) for encode in sides.values())
    rows = faiss.knn(small, np.ascontiguousarray(vectors), min(RECALL_AT, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)[1]
    recall = recall_of(rows, vectors, full, exact_scores(vectors, full))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {name: _median_ms(encode, texts[:TIMED]) for name, encode in sides.items()}
    finally:
        torch.set_num_threads(threads)
    size = file.stat().st_size / 1e6
    return Quantized(round(recall, 6), len(texts), times["int8"], times["float32"], round(size, 1))


def _median_ms(encode: Encode, texts: Sequence[str]) -> float:
    took = []
    for text in texts:
        started = time.perf_counter()
        encode([text])
        took.append(1e3 * (time.perf_counter() - started))
    return round(float(np.median(took)), 3)


def quantized_encoder(folder: Path, file: Path) -> Encode:
    """What encodes queries by the file; tokens, prompt and limits are those of the model in `folder`.

    Raises:
        ConfigError: ONNX Runtime is not installed.
    """
    from training.encoders.transformer import collate_tokens

    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            'this export encodes queries in 8 bits, which needs ONNX Runtime: pip install "hardmine[onnx]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a query is small, and a service answers as many at a time as there are processors
    session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    tokens_of = tokens_of_texts(folder)

    def encode(queries: Sequence[str]) -> F32:
        tokens = tokens_of(queries)
        vectors = np.empty((len(queries), session.get_outputs()[0].shape[1]), np.float32)
        for row in range(len(queries)):
            inputs = collate_tokens(tokens.take(np.array([row])), pad_id=0)  # one text: there is no padding
            inputs.setdefault("pooling_mask", inputs["attention_mask"])
            vectors[row] = session.run(None, {name: inputs[name].numpy() for name in INPUTS})[0][0]
        return vectors

    return encode
