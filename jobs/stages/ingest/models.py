"""The base model and the tokens of a run: what stage 0 does with models, in workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pyarrow as pa

from cluster.commits import Commit, Outcome
from cluster.errors import ConfigError, one_paragraph
from cluster.folders import fetch_folder, folder_digest, upload_folder
from cluster.storage import Store
from cluster.tables import Part, left_parts, read_part, write_part
from jobs.config.config import Config
from training.settings import EncoderSettings

ON_VECTORS = ("adapter", "sequence")
"""Encoders on frozen base vectors: the data's own, or those of encoder.model."""
SAMPLE_TEXTS = 200_000
"""Texts that a new tokenizer is trained on at most."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files one of which holds a tokenizer's words; others keep them in a *.model file."""


def make_base(config: Config, store: Store, folder: str, tables: Commit) -> Outcome:
    """The model to start from as a folder of the run, and a new adapter where that is the encoder; nothing for vectors.

    Of a sequence encoder the frozen base model, if it has one: its own folder is made once there are vectors.

    Raises:
        ConfigError: the model is missing or of another kind, or there are no vectors for an adapter or to mine with.
    """
    from training.encoders.adapter import new_adapter_folder
    from training.encoders.prepare import build_base

    files: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    dimension = tables.figures["dimension"]
    encoder = config.encoder
    if encoder.kind == "vectors":
        if dimension is None:
            raise ConfigError(
                'encoder.kind = "vectors" needs a `vector` column in corpus and queries, which the data has '
                'not; add the vectors, or name a model in encoder.model with kind = "transformer"'
            )
        return Outcome(figures={"digest": None})
    if encoder.kind not in ON_VECTORS or encoder.model is not None:
        with reading_model(encoder.model):
            local = build_base(
                _text_encoder(encoder), config.storage, _sample(store, tables.parts("corpus"), encoder), config.rounds.seed
            )
            check_model(local, encoder)
        files |= upload_folder(local, store, f"{folder}/model")
        figures |= {"prefix": f"{folder}/model", "digest": folder_digest(files, f"{folder}/model")}
    elif dimension is None:
        where = "corpus and queries" if encoder.kind == "adapter" else "the corpus"
        raise ConfigError(
            f'encoder.kind = "{encoder.kind}" without encoder.model needs a `vector` column in {where}, '
            f"which the data has not; add the vectors, or name the frozen base model in encoder.model"
        )
    if encoder.kind == "adapter":
        size = dimension if encoder.model is None else _dimension(local)
        place = Path(tempfile.mkdtemp(prefix="hardmine-adapter-"))
        new_adapter_folder(place, size, encoder.hidden, config.rounds.seed)
        manifest = upload_folder(place, store, f"{folder}/adapter")
        files |= manifest
        figures["adapter_prefix"] = f"{folder}/adapter"
        figures.setdefault("digest", folder_digest(manifest, f"{folder}/adapter"))
    return Outcome(files=files, figures=figures)


@contextmanager
def reading_model(name: str | None) -> Iterator[None]:
    """Raises ConfigError: the user's model folder is not what it should be. What we made ourselves fails as it is."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError, SafetensorError) as error:
        if name is None or getattr(error, "errno", None):  # the disk, not the model
            raise
        raise ConfigError(
            f"encoder.model: expected a complete model at {name}, found one that cannot be read "
            f"({type(error).__name__}: {one_paragraph(str(error))[:300]}); download it again, or give "
            f"another one"
        ) from error


def check_model(folder: Path, encoder: EncoderSettings) -> None:
    """What would fail in every later worker, told at once: damaged weights, no tokenizer, an unknown architecture."""
    from safetensors import safe_open

    from training.encoders.st_format import module_path, read_json

    root = folder / module_path(folder, 0)
    if not any((root / name).exists() for name in TOKENIZERS) and not list(root.glob("*.model")):
        raise ConfigError(
            f"encoder.model: expected a tokenizer in {encoder.model}, found none of {', '.join(TOKENIZERS)}; "
            f"give a complete model folder"
        )
    for file in folder.rglob("*.safetensors"):
        with safe_open(str(file), "pt"):  # reads the header and compares it with the file's length
            pass
    if encoder.kind != "static":
        from transformers import AutoConfig

        AutoConfig.from_pretrained(str(root))
    elif (root / "tokenizer.json").exists():
        read_json(root / "tokenizer.json")


def _text_encoder(encoder: EncoderSettings) -> EncoderSettings:
    """The settings of the model that reads texts: a base is a transformer, and a history's length is none of a text's."""
    if encoder.kind not in ON_VECTORS:
        return encoder
    length = None if encoder.kind == "sequence" else encoder.max_length
    return encoder.model_copy(update={"kind": "transformer", "max_length": length})


def _dimension(folder: Any) -> int:
    from training.encoders.load import load_encoder

    return load_encoder(folder).dimension


def _sample(store: Store, parts: list[Part], encoder: EncoderSettings) -> list[str]:
    if encoder.kind != "static" or encoder.model is not None:
        return []
    texts: list[str] = []
    for part in parts:
        texts += read_part(store, part, ["text"])["text"].to_pylist()
        if len(texts) >= SAMPLE_TEXTS:
            break
    return texts


def tokenise_parts(
    config: Config, store: Store, folder: str, base: Commit, parts: list[tuple[str, Part]]
) -> list[tuple[str, Part, int]]:
    """The tokens of some parts of "corpus" and "queries": (table, written part, tokens) of each."""
    from training.encoders.prepare import Tokenizer, read_prompts

    local = fetch_folder(store, base.files, base.figures["prefix"])
    settings = _text_encoder(config.encoder)
    tokenizer, prompts = Tokenizer(local, settings), read_prompts(local, settings)
    targets = [f"{folder}/{table}/{part.path.rsplit('/', 1)[-1]}" for table, part in parts]
    there = left_parts(store, [replace(part, path=target) for target, (_, part) in zip(targets, parts, strict=True)])
    written = []
    for target, (table, part) in zip(targets, parts, strict=True):
        texts = read_part(store, part, ["row", "text"])
        tokens = tokenizer(texts["text"].to_pylist(), prompts.query if table == "queries" else prompts.item)
        count = len(tokens.flatten())
        if target in there:
            written.append((table, there[target], count))
            continue
        result = pa.table({"row": texts["row"], "tokens": tokens})
        written.append((table, write_part(store, target, result, first_row=part.first_row), count))
    return written
