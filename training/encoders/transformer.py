"""The `transformer` encoder: a Hugging Face model, pooled and L2-normalised.

Weights are float32 whatever the files hold. Some models pool the tokens of a text without those of its prompt: in the token
lists of these the prompt's tokens are -1 - id, and "pooling_mask" says which tokens are pooled.

N texts, T tokens (padded), D dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster.errors import ConfigError, one_paragraph
from training.encoders import st_format
from training.encoders.base import Encoder
from training.encoders.prepare.check import first_config
from training.encoders.st_format import OPTIONS
from training.encoders.tokens.features import Features, Tokens


def pad_tokens(features: Tokens, pad_id: int) -> dict[str, Tensor]:
    """input_ids and attention_mask, int64 [N, T], padded on the right. A text without any token reads one of padding."""
    lengths = features.lengths
    mask = np.arange(max(1, int(lengths.max(initial=1))))[None, :] < lengths[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    ids[mask] = features.values
    mask[lengths == 0, 0] = True
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def collate_tokens(features: Tokens, pad_id: int) -> dict[str, Tensor]:
    """input_ids and attention_mask; pooling_mask where it is another one."""
    inputs = pad_tokens(features, pad_id)
    ids = inputs["input_ids"]
    prompt = ids < 0
    if bool(prompt.any()):
        inputs["pooling_mask"] = inputs["attention_mask"].masked_fill(prompt, 0)
        inputs["input_ids"] = torch.where(prompt, ~ids, ids)
    return inputs


def pool(hidden_NTD: Tensor, mask_NT: Tensor, mode: str) -> Tensor:
    """One vector per text, [N, D]: mean over the tokens in the mask, the first of them (cls), or the last of them."""
    rows = torch.arange(hidden_NTD.shape[0], device=hidden_NTD.device)  # len() would fix it where the encoder is traced
    if mode == "cls":
        return hidden_NTD[rows, mask_NT.argmax(dim=1)]
    if mode == "last":
        positions = torch.arange(mask_NT.shape[1], device=mask_NT.device)
        return hidden_NTD[rows, (mask_NT * positions).argmax(dim=1)]
    weights = mask_NT.unsqueeze(-1).to(hidden_NTD.dtype)
    return (hidden_NTD * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


class TextEncoder(Encoder):
    """Base of the encoders around a Hugging Face model."""

    kind = "transformer"

    def __init__(self, model: Any, *, pad_id: int, source: Path) -> None:
        super().__init__()
        self.model = model
        self.source = source
        """The folder that it was loaded from."""
        self.merge: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
        """From the weights of a model with additions (LoRA) to those of a plain one; None: it has none."""
        self.head: frozenset[str] = frozenset()
        """Names of the weights of `model` that LoRA trains whole."""
        self._pad_id = pad_id

    def collate(self, features: Features) -> dict[str, Tensor]:
        """input_ids and attention_mask; pooling_mask where it is another one."""
        assert isinstance(features, Tokens)
        return collate_tokens(features, self._pad_id)

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """As a sentence-transformers folder; additions to the weights are merged into them."""
        self._save_plain(folder, state if self.merge is None else self.merge(state))

    def _save_plain(self, folder: Path, state: dict[str, Tensor]) -> None:
        raise NotImplementedError


def checkpoint_activations(encoder: Encoder) -> None:
    """Let `encoder` compute its layers' activations again in the backward pass, instead of keeping them.

    Raises:
        ConfigError: the encoder is no transformer, or its architecture cannot.
    """
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(
            f'training.activation_checkpointing = true is for encoder.kind = "transformer", found '
            f'"{encoder.kind}", whose activations are small; set it to false'
        )
    from transformers import PreTrainedModel

    found: dict[str, Any] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, PreTrainedModel) and not any(name.startswith(f"{above}.") for above in found):
            found[name] = module
    if not found:
        raise _cannot_checkpoint(encoder, "none of its modules is a transformer")
    for model in found.values():
        # the second is its name in older releases of transformers
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        try:
            # the reentrant form breaks ZeRO 2 and 3 when a step has several forward passes: DeepSpeed asserts that a
            # parameter "has already been reduced" (huggingface/sentence-transformers#3173)
            enable({"use_reentrant": False})
        except ValueError as error:
            raise _cannot_checkpoint(encoder, one_paragraph(str(error))) from error


def _cannot_checkpoint(encoder: TextEncoder, why: str) -> ConfigError:
    return ConfigError(
        f"training.activation_checkpointing = true: the model in {encoder.source} cannot ({why}); set it to "
        f"false, and training.grad_cache = true to save memory"
    )


class OneModelEncoder(TextEncoder):
    """Base of the encoders around a single model of transformers, which lies in the folder of their first module."""

    def __init__(self, model: Any, *, pad_id: int, source: Path) -> None:
        super().__init__(model, pad_id=pad_id, source=source)
        self._looks_up_first = False

    @property
    def token_table(self) -> nn.Module | None:
        """The model's own, once `find_token_table` has tried it."""
        table: nn.Module = self.model.get_input_embeddings()
        return table if self._looks_up_first else None

    @torch.no_grad()
    def find_token_table(self) -> None:
        """Offer a `token_table`, where the model gives the same vectors from what it says as from the tokens themselves.

        The gradient of a lookup is as large as the whole table, so one for each of a step's micro-batches costs more memory
        traffic than a small model's own layers.
        """
        table = self.model.get_input_embeddings()
        mode = self.training
        self.eval()
        # of different lengths: a model may count positions from the tokens
        ids = torch.arange(12, device=next(self.parameters()).device).view(2, 6) % table.weight.shape[0]
        mask = torch.ones_like(ids)
        ids[1, 4:], mask[1, 4:] = self._pad_id, 0
        try:
            got = self({"inputs_embeds": table(ids), "attention_mask": mask})
            self._looks_up_first = torch.allclose(got, self({"input_ids": ids, "attention_mask": mask}), atol=1e-5)
        except (TypeError, ValueError, RuntimeError, AttributeError):  # an architecture that takes tokens only
            self._looks_up_first = False
        finally:
            self.train(mode)

    def _save_plain(self, folder: Path, state: dict[str, Tensor]) -> None:
        # the source's small files, these weights
        st_format.copy_folder(self.source, folder, without_weights=True)
        weights = {name.removeprefix("model."): value for name, value in state.items()}
        root = folder / st_format.module_path(folder, 0)
        st_format.save_tied(weights, root / "model.safetensors")


class TransformerEncoder(OneModelEncoder):
    """AutoModel → pooling → normalise."""

    def __init__(self, model: Any, *, pooling: str, pad_id: int, source: Path) -> None:
        super().__init__(model, pad_id=pad_id, source=source)
        self.pooling = pooling
        self.dimension = int(model.config.hidden_size)
        self._types = int(getattr(model.config, "type_vocab_size", 0) or 0) > 0
        for name, parameter in model.named_parameters():
            if name.startswith("pooler."):  # BERT's own pooler is not on the path of the embedding
                parameter.requires_grad_(False)

    @classmethod
    def try_load(cls, folder: Path) -> TransformerEncoder | None:
        """From a sentence-transformers folder [Transformer, Pooling, Normalize]; None: its pooling is another, or its model is
        not loaded by its configuration alone (an encoder that is half of an encoder and decoder, options in its files)."""
        from transformers import AutoModel

        quiet()
        pooling = st_format.read_pooling(folder / st_format.module_path(folder, 1))
        if pooling is None:
            return None
        root = folder / st_format.module_path(folder, 0)
        options = first_config(root)
        if _has_decoder(_empty_model(root)) or any(options.get(name) for name in OPTIONS):
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # weights that the folder lacks (a pooler) are drawn: the same on every rank and run
            model = AutoModel.from_pretrained(str(root), dtype=torch.float32)
        return cls(model, pooling=pooling[0], pad_id=_pad_id(root), source=folder)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[N, D] float32."""
        arguments = dict(inputs)
        mask = arguments.pop("pooling_mask", inputs["attention_mask"])
        if self._types:
            arguments["token_type_ids"] = torch.zeros_like(inputs["attention_mask"])
        hidden = self.model(**arguments).last_hidden_state
        return functional.normalize(pool(hidden, mask, self.pooling).float(), dim=-1)


class GenericEncoder(TextEncoder):
    """Any other sentence-transformers pipeline (a Dense layer, another pooling …), run by sentence-transformers."""

    def __init__(self, model: Any, source: Path) -> None:
        super().__init__(model, pad_id=_padding_of(model.tokenizer), source=source)
        self.dimension = int(model.get_embedding_dimension())

    @classmethod
    def load(cls, folder: Path) -> GenericEncoder:
        """From a sentence-transformers folder. Remote code is never trusted."""
        return cls(_open(folder), folder)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[N, D] float32."""
        values: dict[str, Any] = {**inputs, "modality": "text"}
        mask = values.pop("pooling_mask", inputs["attention_mask"])
        for number, module in enumerate(self.model):
            values = module(values)
            if number == 0:
                # `prompt_length`, by which Pooling leaves a prompt out, is one number for all texts of a batch
                values["attention_mask"] = mask
        return functional.normalize(values["sentence_embedding"].float(), dim=-1)

    def _save_plain(self, folder: Path, state: dict[str, Tensor]) -> None:
        # into a fresh model: with ZeRO 3 this one's weights are spread over ranks, with bfloat16 they are rounded
        fresh = _open(self.source)
        fresh.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
        fresh.save(str(folder), create_model_card=False)


def quiet() -> None:
    """No progress bars and no tables of weights: those of every worker and model would drown our own lines."""
    # where accelerate is installed, loading imports it, and it imports deepspeed, which then looks for a device and says so
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def encoder_class(root: Path) -> Any:
    """The class of transformers that encodes with the model at `root`; None: sentence-transformers has its own choice."""
    import transformers

    model = _empty_model(root)
    return (
        getattr(transformers, f"{type(model).__name__.removesuffix('Model')}EncoderModel", None)
        if _has_decoder(model)
        else type(model)
    )


def _empty_model(root: Path) -> Any:
    """The model at `root` without weights."""
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.from_pretrained(str(root)))


def _has_decoder(model: Any) -> bool:
    """Whether it is an encoder and a decoder, of which sentence-transformers takes the encoder alone."""
    return hasattr(model, "encoder") and hasattr(model, "decoder")


def _open(folder: Path) -> Any:
    """The pipeline in `folder`, all of it in float32: a file may hold any other type, and so may each of its modules."""
    from sentence_transformers import SentenceTransformer

    quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # as above
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    return model.float()


def _pad_id(root: Path) -> int:
    from transformers import AutoTokenizer

    return _padding_of(AutoTokenizer.from_pretrained(str(root)))


def _padding_of(tokenizer: Any) -> int:
    """What a text is padded with; a tokenizer without a padding token has another one that will do: it is masked."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)
