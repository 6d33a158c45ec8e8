"""The `static` encoder: a text's embedding is the mean of its tokens' vectors. Tiny, and fast on CPU."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from cluster.errors import ArtifactError
from training.encoders import st_format
from training.encoders.base import Encoder
from training.encoders.tokens.features import Features, Tokens


class StaticEncoder(Encoder):
    """Mean of token embeddings, L2-normalised; a text without any known token is the zero vector."""

    kind = "static"
    pads = False

    def __init__(self, weights: Tensor, source: Path) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag.from_pretrained(weights, freeze=False, mode="mean")
        self.dimension = int(weights.shape[1])
        self._source = source

    @classmethod
    def load(cls, folder: Path) -> StaticEncoder:
        """From a sentence-transformers folder whose first module is a StaticEmbedding."""
        root = folder / st_format.module_path(folder, 0)
        return cls(_token_vectors(load_file(root / "model.safetensors")), folder)

    def collate(self, features: Features) -> dict[str, Tensor]:
        """Flat token ids and where each text starts."""
        assert isinstance(features, Tokens)
        return {
            "input_ids": torch.from_numpy(features.values.astype("int64")),
            "offsets": torch.from_numpy(features.offsets[:-1].copy()),
        }

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[N, D] float32."""
        mean = self.embedding(inputs["input_ids"], inputs["offsets"])
        return functional.normalize(mean.float(), dim=-1)

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """As a sentence-transformers folder."""
        st_format.copy_folder(self._source, folder, without_weights=True)
        root = folder / st_format.module_path(folder, 0)
        save_file({"embedding.weight": state["embedding.weight"].contiguous()}, root / "model.safetensors")


def _token_vectors(state: dict[str, Tensor]) -> Tensor:
    """[vocabulary, D] float32 of a StaticEmbedding's weights, also those that model2vec wrote."""
    if "embedding.weight" in state:
        return state["embedding.weight"].float()
    if "embeddings" not in state:
        raise ArtifactError(
            f'a static model\'s model.safetensors holds "embedding.weight" (or "embeddings"), found '
            f"{sorted(state)}; give a StaticEmbedding model of sentence-transformers or model2vec"
        )
    vectors = state["embeddings"]
    if "mapping" in state:  # several tokens share a vector
        vectors = vectors[state["mapping"].long()]
    return vectors.float() * (state["weights"].float()[:, None] if "weights" in state else 1.0)


def write_static_folder(folder: Path, tokenizer_json: str, weights: Tensor) -> None:
    """A new static model as a sentence-transformers folder. weights: [vocabulary, D] float32."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    save_file({"embedding.weight": weights.contiguous()}, folder / "model.safetensors")
    st_format.write_modules(
        folder,
        [
            ("", "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"),
            ("1_Normalize", st_format.NORMALIZE),
        ],
    )
    st_format.write_normalize(folder / "1_Normalize")
    st_format.write_prompts(folder, {})
