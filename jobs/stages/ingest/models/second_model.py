"""The teacher's model as a folder of the run, in a worker: as `base_model` does with the model that is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.commits import Ledger, Outcome
from cluster.errors import ConfigError
from cluster.storage.model_folders import folder_digest, upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.config.config import Config
from jobs.record.stages import Kind as StageKind
from jobs.record.stages import Stage
from jobs.record.usage import RERANKER
from mining.settings import TeacherSettings
from training.settings import EncoderSettings, Kind


def make_teacher(config: Config, store: Store, folder: str, settings: TeacherSettings, section: str) -> Outcome:
    """The teacher below `folder`, with the digest of its content; of an embedding model also which kind it is.

    Args:
        section: where the configuration names the model, for messages.

    Raises:
        ConfigError: there is no such model, or it is of another kind than the settings say, or damaged.
    """
    from training.encoders import st_format
    from training.encoders.cross_encoder import copy_cross_encoder
    from training.encoders.prepare.prepare import build_base, model_folder
    from training.encoders.prepare.trial import reading_model, try_model
    from training.encoders.rerankers.late_encoder import is_late

    kind = None
    with tempfile.TemporaryDirectory(prefix="hardmine-teacher-") as local, named_after(section):
        target = Path(local)
        name = str(settings.model)
        with reading_model(name), model_folder(name, config.storage) as source:
            if settings.kind == "reranker" and is_late(source):
                st_format.copy_folder(source, target, without_weights=False)
            elif settings.kind in ("cross_encoder", "reranker"):
                copy_cross_encoder(source, settings.max_length, target)
            else:
                encoder = _as_encoder(source, settings, section)
                kind = encoder.kind
                build_base(encoder, config.storage, [], config.rounds.seed, target)
        if kind is not None:
            try_model(target, encoder)
        files = upload_folder(target, store, f"{folder}/model")
    return Outcome(
        files=files, figures={"prefix": f"{folder}/model", "digest": folder_digest(files, f"{folder}/model"), "encoder": kind}
    )


def reranker_of_run(run: str, storage: StorageSettings) -> str:
    """The address of the re-ranker that a finished run has kept.

    Raises:
        ConfigError: there is no finished run, or it has none.
    """
    store = Store(run, storage)
    finished = Ledger(store).find(Stage(StageKind.FINISH).name)
    if finished is not None:
        folder = f"{finished.figures['prefix']}/{RERANKER}"
        if any(path.startswith(f"{folder}/") for path in finished.files):
            return store.url(folder)
    lacks = "no finished run" if finished is None else "a run without a re-ranker"
    raise ConfigError(
        f"mining.teacher.model: expected the folder of a finished run with a re-ranker, found {lacks} in {run}; finish that run "
        f'with [reranker], or set mining.teacher.kind = "cross_encoder" for the folder of a model'
    )


def _as_encoder(source: Path, settings: TeacherSettings, section: str) -> EncoderSettings:
    """Raises ConfigError: the folder holds a cross-encoder."""
    from training.encoders.cross_encoder import describe

    architecture, modules = describe(source)
    if architecture.endswith("ForSequenceClassification") and "Pooling" not in modules:
        way = 'set mining.teacher.kind = "cross_encoder", or ' if section == "mining.teacher" else ""
        raise ConfigError(
            f"{section}.model: expected an embedding model, found {architecture} in {source}, which reads query "
            f"and item together; {way}give an embedding model"
        )
    kind: Kind = "static" if modules[:1] == ["StaticEmbedding"] else "transformer"
    return EncoderSettings(kind=kind, model=str(source), max_length=settings.max_length)


@contextmanager
def named_after(section: str) -> Iterator[None]:
    """The checks of models speak of encoder.model: here it is another one that is wrong."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        for name in ("model", "kind", "max_length"):
            text = text.replace(f"encoder.{name}", f"{section}.{name}")
        raise ConfigError(text) from error
