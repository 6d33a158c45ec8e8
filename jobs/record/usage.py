"""The Python code that computes vectors with a run's model, as it is printed, and as the model card shows it."""

from __future__ import annotations

import json
import shlex
from typing import Literal

Reads = Literal["texts", "vectors", "histories"]
"""What a model reads: texts, the vectors that came with the data (an adapter without a base model), or histories of items."""
LOCAL_COPY = "model"
"""The folder that the code opens where the model lies on S3."""
RERANKER = "reranker"
"""The folder of the fine-tuned re-ranker in the model's."""

_TEXTS = """\
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({path})
queries = model.encode_query(["a query"])
items = model.encode_document(["the text of an item"])
"""
_VECTORS = """\
import torch
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({path}, device="cpu")
vectors = torch.rand(2, {dimension})  # yours: queries or items, from the model that made the vectors in the data
embeddings = model({{"sentence_embedding": vectors}})["sentence_embedding"].detach().numpy()
"""
_HISTORIES = """\
import json
from pathlib import Path
from training.encoders.load import load_encoder
from training.encoders.sequence import item_tokens
folder = Path({path})
encoder = load_encoder(folder)
ids = json.loads((folder / "items.json").read_text())
queries = encoder.encode(encoder.read([ids[:2]]))  # a list of item ids for each query, oldest first
items = encoder.encode(item_tokens(0, len(ids)))  # in the order of items.json
"""
RERANKER_CODE = {
    "cross_encoder": f"""\
from sentence_transformers import CrossEncoder
reranker = CrossEncoder("{RERANKER}")
scores = reranker.predict([("a query", "the text of an item")])  # higher is better
""",
    "late_interaction": f"""\
from sentence_transformers import MultiVectorEncoder
reranker = MultiVectorEncoder("{RERANKER}")
queries, items = reranker.encode_query(["a query"]), reranker.encode_document(["the text of an item"])
scores = reranker.similarity(queries, items)  # higher is better
""",
}
"""By reranker.kind."""
_CODE = {"texts": _TEXTS, "vectors": _VECTORS, "histories": _HISTORIES}


def usage_code(reads: Reads, path: str, dimension: int) -> str:
    """Code that loads the model folder `path` and computes vectors of unit length; it runs as it is.

    Args:
        dimension: of the vectors that the model reads or makes.
    """
    return _CODE[reads].format(path=json.dumps(path, ensure_ascii=False), dimension=dimension)


def copy_command(url: str, endpoint: str | None) -> str:
    """A shell command that copies the model at `url` on S3 to the folder that the code opens."""
    return shlex.join(["aws", "s3", "cp", "--recursive", url, LOCAL_COPY, *(["--endpoint-url", endpoint] if endpoint else [])])
