"""Tiny models with random weights, one of every kind that users have, made offline; and how near our vectors are to those of
sentence-transformers. `python -m tests.support.tiny_models` prints the table of docs/models.md."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cluster.errors import HardmineError
from cluster.storage.settings import StorageSettings
from cluster.tables.tables import F32, lists_to_csr
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.prepare.prepare import build_base
from training.encoders.prepare.trial import reading_model, try_model
from training.encoders.tokens.features import Tokens
from training.encoders.tokens.tokenizer import Tokenizer, read_prompts
from training.settings import EncoderSettings

SENTENCE = "the quick brown fox jumps over a lazy dog cat red shoe green bag find item query document Größe naïve 北 京"
WORDS = SENTENCE.split(" ")
TEXTS = ("a red shoe", "The quick brown FOX", "  naïve Größe, 北京 🙂", "fox dog cat " * 70, "dog")
"""Of very different lengths, the longest of 210 words."""
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclass(frozen=True)
class Kind:
    """A kind of model."""

    name: str
    make: Callable[[Path], None]
    """Writes it into an empty folder."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the encoder, beside its model."""
    refused: str = ""
    """Words of the reason why it is refused; "": it works."""
    side: str | None = None
    """Name of the prompt under which sentence-transformers encodes a query; None: it has no such."""


def write_tokenizer(folder: Path, *, template: str = "[CLS] $A [SEP]", lower: bool = True, **options: Any) -> int:
    """A WordPiece tokenizer of a few words and all their letters; returns the size of its vocabulary."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted({letter for word in [*WORDS, *(word.lower() for word in WORDS), "FOX"] for letter in word} | {"ß", ","})
    known = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(known))}
    fast = Fast(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=False)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    fast.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=fast, **{**names, **options}).save_pretrained(folder)
    return len(vocabulary)


def plain(architecture: str, *, tokenizer: dict[str, Any] | None = None, dtype: torch.dtype | None = None, **config: Any) -> Any:
    """Writes a plain Hugging Face folder: `architecture` is a name such as "Bert"; config: of the model."""

    def make(folder: Path) -> None:
        import transformers

        size = write_tokenizer(folder, **(tokenizer or {}))
        head = "EncoderModel" if architecture == "T5" else "Model"
        with torch.random.fork_rng():
            torch.manual_seed(1)
            settings = getattr(transformers, f"{architecture}Config")(vocab_size=size, **{"pad_token_id": 1, **config})
            model = getattr(transformers, f"{architecture}{head}")(settings)
        (model if dtype is None else model.to(dtype)).save_pretrained(folder)

    return make


def pipeline(
    base: Any, *further: Callable[[int], Any], pooling: Any = "mean", include_prompt: bool = True, **options: Any
) -> Any:
    """Writes a folder as sentence-transformers saves it. further: from the dimension so far to a module; options: of the
    whole, e.g. prompts."""

    def make(folder: Path) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        with tempfile.TemporaryDirectory() as parts, torch.random.fork_rng():
            torch.manual_seed(2)
            base(Path(parts))
            first = Transformer(parts)
            modules: list[Any] = [first, Pooling(first.get_embedding_dimension(), pooling, include_prompt=include_prompt)]
            for each in further:
                modules.append(each(modules[-1].get_embedding_dimension()))
            kept = {name: options.pop(name) for name in ("truncate_dim",) if name in options}
            model = SentenceTransformer(modules=modules, device="cpu", **options, **kept)
            dtypes = {parameter.dtype for parameter in first.parameters()}
            model.to(dtypes.pop()).save(str(folder), create_model_card=False)

    return make


def changed(make: Any, name: str, **values: Any) -> Any:
    """The same with other values in one of its JSON files; None takes one out."""

    def change(folder: Path) -> None:
        make(folder)
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        content = {key: value for key, value in {**content, **values}.items() if value is not None}
        path.write_text(json.dumps(content))

    return change


def edited(make: Any, edit: Callable[[Path], Any]) -> Any:
    """The same with something done to the folder."""

    def change(folder: Path) -> None:
        make(folder)
        edit(folder)

    return change


def encoder_folder(kind: Kind, scratch: Path) -> tuple[Path, Path, EncoderSettings]:
    """(source, what a run makes of it, its settings). Raises ConfigError: it is refused."""
    source, base = scratch / "source", scratch / "base"
    source.mkdir()
    base.mkdir()
    kind.make(source)
    settings = EncoderSettings(**{"model": str(source), **kind.settings})
    with reading_model(settings.model):
        build_base(settings, StorageSettings(), [], 0, base)
    try_model(base, settings)
    return source, base, settings


def ours(encoder: Encoder, folder: Path, settings: EncoderSettings, texts: Sequence[str], prompt: str, *, alone: bool) -> F32:
    """Our vectors, each text alone or all in one batch."""
    offsets, values = lists_to_csr(pa.chunked_array([Tokenizer(folder, settings)(texts, prompt)]))
    tokens = Tokens(offsets, values.astype(np.int32))
    if not alone:
        return encoder.encode(tokens, budget_tokens=1_000_000)
    return np.concatenate([encoder.encode(tokens.take(np.array([row]))) for row in range(len(tokens))])


def theirs(folder: Path, limit: int, texts: Sequence[str], **prompt: Any) -> F32:
    """The vectors of sentence-transformers, each text alone (left padding moves positions), in float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}).float()
    if limit:
        model.max_seq_length = limit  # it would fail in the forward pass where a folder promises more than the positions
    if model.tokenizer.pad_token is None:  # it would not even start
        model.tokenizer.pad_token = model.tokenizer.eos_token
    vectors: F32 = model.encode(list(texts), batch_size=1, normalize_embeddings=True, show_progress_bar=False, **prompt)
    return vectors


def cosine(got: F32, want: F32) -> float:
    """The lowest cosine of two tables of unit vectors; where both are zero it is 1."""
    assert got.shape == want.shape, (got.shape, want.shape)
    zero = ~got.any(axis=1) & ~want.any(axis=1)
    return float(np.where(zero, 1.0, (got * want).sum(axis=1)).min())


def one_step(encoder: Encoder, tokens: Tokens) -> None:
    """A step of training that moves every weight a little."""
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    encoder.train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        optimizer = torch.optim.AdamW([each for each in encoder.parameters() if each.requires_grad], lr=3e-3)
        vectors = encoder(encoder.collate(tokens))
        (vectors * torch.randn(vectors.shape)).sum().backward()
        optimizer.step()


def measure(kind: Kind, scratch: Path) -> dict[str, float]:
    """Lowest cosines between our vectors and those of sentence-transformers: before training, alone and in a batch, as item
    and as query; and after a step of training and an export."""
    source, base, settings = encoder_folder(kind, scratch)
    encoder, prompts = load_encoder(base), read_prompts(base, settings)
    limit = Tokenizer(base, settings)._max_length if settings.kind != "static" else 0
    want = theirs(source, limit, TEXTS)
    figures = {
        "alone": cosine(ours(encoder, base, settings, TEXTS, prompts.item, alone=True), want),
        "in a batch": cosine(ours(encoder, base, settings, TEXTS, prompts.item, alone=False), want),
        "query": cosine(
            ours(encoder, base, settings, TEXTS, prompts.query, alone=False), theirs(source, limit, TEXTS, prompt_name=kind.side)
        ),
    }
    before = ours(encoder, base, settings, TEXTS, "", alone=False)
    offsets, values = lists_to_csr(pa.chunked_array([Tokenizer(base, settings)(TEXTS, "")]))
    one_step(encoder, Tokens(offsets, values.astype(np.int32)))
    exported = scratch / "exported"
    exported.mkdir()
    encoder.save(exported, {name: value.detach().clone() for name, value in encoder.state_dict().items()})
    after = ours(encoder, base, settings, TEXTS, prompts.query, alone=False)
    assert np.abs(ours(encoder, base, settings, TEXTS, "", alone=False) - before).max() > 1e-3, "the step changed nothing"
    again = ours(load_encoder(exported), exported, settings, TEXTS, prompts.query, alone=True)
    figures["exported"] = min(cosine(after, theirs(exported, 0, TEXTS, prompt_name="query")), cosine(after, again))
    return figures


def main() -> None:
    """Print the table."""
    from tests.support.model_kinds import KINDS

    os.environ["HF_HUB_OFFLINE"] = "1"
    print("| kind | alone | in a batch | as a query | after a step, exported |\n|---|---|---|---|---|")  # noqa: T201
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                row = " | ".join(f"{value:.6f}" for value in measure(kind, Path(scratch)).values())
            except HardmineError as error:
                row = f"refused: {str(error).replace(scratch, '…')} | | |"
        print(f"| {kind.name} | {row} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
