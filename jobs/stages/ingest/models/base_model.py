"""The base model and the tokens of a run: what stage 0 does with models, in workers."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cluster.commits import Commit, Outcome
from cluster.errors import ConfigError
from cluster.storage.model_folders import Manifest, fetch_folder, folder_digest, upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import Part, left_parts, read_part, write_part
from jobs.config.config import Config
from jobs.stages.ingest.lookup.equal_texts import reads_vectors
from training.settings import EncoderSettings

ON_VECTORS = ("adapter", "sequence")
"""Encoders on frozen base vectors: the data's own, or those of encoder.model."""
SAMPLE_TEXTS = 200_000
"""Texts that a new tokenizer is trained on at most."""


def make_base(config: Config, store: Store, folder: str, tables: Commit) -> Outcome:
    """The model to start from as a folder of the run, and a new adapter where that is the encoder; nothing for vectors.

    Of a sequence encoder the frozen base model, if it has one: its own folder is made once there are vectors.

    Raises:
        ConfigError: the model is missing or of another kind, or there are no vectors for an adapter or to mine with.
    """
    files: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    dimension = tables.figures["dimension"]
    encoder = config.encoder
    refuse_no_vectors(encoder, dimension)
    if encoder.kind == "vectors":
        return Outcome(figures={"digest": None, "dimension": dimension})
    if encoder.kind not in ON_VECTORS or encoder.model is not None:
        manifest, dimension, licence = _build(config, store, folder, tables)
        files |= manifest
        figures |= {"prefix": f"{folder}/model", "digest": folder_digest(files, f"{folder}/model"), "licence": licence}
    if encoder.kind == "adapter":
        manifest = _new_adapter(config, store, folder, dimension)
        files |= manifest
        figures["adapter_prefix"] = f"{folder}/adapter"
        figures.setdefault("digest", folder_digest(manifest, f"{folder}/adapter"))
    return Outcome(files=files, figures=figures | {"dimension": dimension})


def refuse_no_vectors(encoder: EncoderSettings, dimension: int | None) -> None:
    """Raises ConfigError: the encoder reads the data's vectors, and there are none. Args: dimension: of the data's vectors."""
    if dimension is not None or not reads_vectors(encoder):
        return
    if encoder.kind == "vectors":
        raise ConfigError(
            'encoder.kind = "vectors" needs a `vector` column in corpus and queries, which the data does not '
            'have; add the vectors, or name a model in encoder.model with kind = "transformer"'
        )
    where = "corpus and queries" if encoder.kind == "adapter" else "the corpus"
    raise ConfigError(
        f'encoder.kind = "{encoder.kind}" without encoder.model needs a `vector` column in {where}, '
        f"which the data does not have; add the vectors, or name the frozen base model in encoder.model"
    )


def _build(config: Config, store: Store, folder: str, tables: Commit) -> tuple[Manifest, int, dict[str, str]]:
    """The model that reads texts, in the run's storage; the length of its vectors; what its card says of its licence."""
    from training.encoders.prepare.prepare import build_base, model_folder, read_licence
    from training.encoders.prepare.trial import reading_model, try_model

    encoder = _text_encoder(config.encoder)
    texts = _sample(store, tables.parts("corpus"), config.encoder)
    licence: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="hardmine-base-") as local:
        with ExitStack() as stack:
            stack.enter_context(reading_model(encoder.model))
            source = encoder
            if encoder.model is not None:
                own = stack.enter_context(model_folder(encoder.model, config.storage))
                licence, source = read_licence(own), encoder.model_copy(update={"model": str(own)})
            build_base(source, config.storage, texts, config.rounds.seed, Path(local))
        dimension = try_model(Path(local), encoder)
        return upload_folder(Path(local), store, f"{folder}/model"), dimension, licence


def _new_adapter(config: Config, store: Store, folder: str, dimension: int) -> Manifest:
    from training.encoders.adapter import new_adapter_folder

    with tempfile.TemporaryDirectory(prefix="hardmine-adapter-") as local:
        new_adapter_folder(Path(local), dimension, config.encoder.hidden, config.rounds.seed)
        return upload_folder(Path(local), store, f"{folder}/adapter")


def _text_encoder(encoder: EncoderSettings) -> EncoderSettings:
    """The settings of the model that reads texts: a base is a transformer, and a history's length is none of a text's."""
    if encoder.kind not in ON_VECTORS:
        return encoder
    length = None if encoder.kind == "sequence" else encoder.max_length
    return encoder.model_copy(update={"kind": "transformer", "max_length": length})


def _sample(store: Store, parts: list[Part], encoder: EncoderSettings) -> list[str]:
    if encoder.kind != "static" or encoder.model is not None:
        return []
    from training.encoders.prepare.new_static import MOST_TEXT

    texts: list[str] = []
    for part in parts:
        texts += pc.utf8_slice_codeunits(read_part(store, part, ["text"])["text"], 0, MOST_TEXT).to_pylist()
        if len(texts) >= SAMPLE_TEXTS:
            break
    return texts


class Tokenised(NamedTuple):
    """What was written of one part."""

    table: str
    """"corpus" or "queries"."""
    part: Part
    tokens: int
    blank: int
    """Texts that leave no token of their own."""
    first_blank: str | None
    """The id of the first of them."""


def tokenise_parts(config: Config, store: Store, folder: str, base: Commit, parts: list[tuple[str, Part]]) -> list[Tokenised]:
    """The tokens of some parts of "corpus" and "queries"."""
    from training.encoders.tokens.tokenizer import Tokenizer, read_prompts

    local = fetch_folder(store, base.files, base.figures["prefix"])
    settings = _text_encoder(config.encoder)
    tokenizer, prompts = Tokenizer(local, settings), read_prompts(local, settings)
    targets = [f"{folder}/{table}/{part.path.rsplit('/', 1)[-1]}" for table, part in parts]
    there = left_parts(store, [replace(part, path=target) for target, (_, part) in zip(targets, parts, strict=True)])
    written = []
    for target, (table, part) in zip(targets, parts, strict=True):
        texts = read_part(store, part, ["row", "id", "text"])
        prompt = prompts.query if table == "queries" else prompts.item
        tokens = tokenizer(texts["text"].to_pylist(), prompt)
        done = there.get(target)
        if done is None:
            done = write_part(store, target, pa.table({"row": texts["row"], "tokens": tokens}), first_row=part.first_row)
        blank = texts["id"].filter(pa.array(tokenizer.blank(tokens, prompt)))
        first = blank[0].as_py() if len(blank) else None
        written.append(Tokenised(table, done, len(tokens.flatten()), len(blank), first))
    return written
