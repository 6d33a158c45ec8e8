"""The `reranker` encoder: a cross-encoder of one score, whose "embedding" of a pair is its logit.

Everything that encodes texts (packs under a token budget, passes of training, several packs at a time) reads pairs with it.

N pairs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster.errors import ArtifactError
from training.encoders import st_format
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.features import Features
from training.encoders.transformer import OneModelEncoder, quiet

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


class Float32Linear(nn.Linear):
    """A linear layer that computes and returns float32, whatever its weights are: logits in bfloat16 make ties of good pairs."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out] float32."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())


class PairEncoder(OneModelEncoder):
    """A model of transformers that ends in ForSequenceClassification, with one label."""

    kind = "reranker"
    dimension = 1

    def __init__(self, model: Any, *, source: Path) -> None:
        config = model.config
        pad = config.get_text_config().pad_token_id
        super().__init__(model, pad_id=0 if pad is None else int(pad), source=source)
        self.activation: str | None = None
        """What sentence-transformers is to apply to the logits of the model that is saved; None: what its folder says."""
        self._types = int(getattr(config, "type_vocab_size", 0) or 0) > 1
        for module in model.modules():
            if type(module) is nn.Linear and module.out_features == 1:
                module.__class__ = Float32Linear
        body = f"{model.base_model_prefix}."
        self.head = frozenset(
            name for name, _ in model.named_parameters() if not name.startswith(body) or "pooler" in name.split(".")
        )

    @classmethod
    def load(cls, folder: Path) -> PairEncoder:
        """From a folder that `prepare_reranker` or `save` wrote, or that a cross-encoder of the same kind lies in.

        Raises:
            ArtifactError: it is another kind of model.
        """
        from transformers import AutoModelForSequenceClassification

        quiet()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # weights that the folder lacks are drawn: the same on every rank and run
            root = folder / st_format.module_path(folder, 0)
            model = AutoModelForSequenceClassification.from_pretrained(str(root), dtype=torch.float32)
        if model.config.num_labels != 1:
            raise ArtifactError(f"{folder} holds a classifier of {model.config.num_labels} classes; expected a cross-encoder")
        return cls(model, source=folder)

    def collate(self, features: Features) -> dict[str, Tensor]:
        """input_ids, attention_mask and, if the model has any, token_type_ids: 1 for tokens that are -1 - id."""
        inputs = super().collate(features)
        pooled = inputs.pop("pooling_mask", inputs["attention_mask"])
        if self._types:
            inputs["token_type_ids"] = inputs["attention_mask"] - pooled
        return inputs

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits [N, 1] float32."""
        logits: Tensor = self.model(**inputs).logits
        return logits.float()

    def _save_plain(self, folder: Path, state: dict[str, Tensor]) -> None:
        super()._save_plain(folder, state)
        if self.activation is not None:
            set_activation(folder, self.activation)


def set_activation(folder: Path, activation: str) -> None:
    """Let sentence-transformers apply `activation` to the logits of the model in `folder`."""
    path = folder / st_format.module_path(folder, 0) / "config.json"
    config = read_json(path)
    config.pop("sbert_ce_default_activation_function", None)
    write_json(path, config | {"sentence_transformers": config.get("sentence_transformers", {}) | {"activation_fn": activation}})
    own = folder / "config_sentence_transformers.json"
    if own.exists():
        write_json(own, read_json(own) | {"activation_fn": activation})


def activation_of(folder: Path) -> Callable[[Tensor], Tensor]:
    """What sentence-transformers applies to the logits of the model in `folder`: a sigmoid, unless the folder says otherwise."""
    config = read_json(folder / st_format.module_path(folder, 0) / "config.json")
    own = folder / "config_sentence_transformers.json"
    path = (
        (read_json(own).get("activation_fn") if own.exists() else None)
        or config.get("sentence_transformers", {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
        or SIGMOID
    )
    if not path.startswith("torch."):  # code of the model's own is not run, as in sentence-transformers
        path = SIGMOID
    module, _, name = path.rpartition(".")
    activation: Callable[[Tensor], Tensor] = getattr(importlib.import_module(module), name)()
    return activation
