"""Which kind of encoder lies in a folder."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import ArtifactError
from training.encoders.adapter import AdapterEncoder
from training.encoders.base import Encoder
from training.encoders.sequence import CONFIG as SEQUENCE
from training.encoders.sequence import SequenceEncoder
from training.encoders.st_format import read_json
from training.encoders.static import StaticEncoder
from training.encoders.transformer import GenericEncoder, TransformerEncoder


def load_encoder(folder: Path) -> Encoder:
    """The encoder that lies in `folder`.

    Raises:
        ArtifactError: the folder holds no model this version can read.
    """
    modules = folder / "modules.json"
    if (folder / "adapter.json").exists():
        return AdapterEncoder.load(folder)
    if (folder / SEQUENCE).exists():
        return SequenceEncoder.load(folder)
    if not modules.exists():
        raise ArtifactError(
            f"{folder} holds neither modules.json nor adapter.json nor {SEQUENCE}; expected a "
            f"sentence-transformers folder, or an adapter or sequence encoder of hardmine"
        )
    kinds = [module["type"].rsplit(".", 1)[-1] for module in read_json(modules)]
    if kinds[0] == "StaticEmbedding" and set(kinds[1:]) <= {"Normalize"}:
        return StaticEncoder.load(folder)
    if kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Normalize"}:
        known = TransformerEncoder.try_load(folder)
        if known is not None:
            return known
    return GenericEncoder.load(folder)
