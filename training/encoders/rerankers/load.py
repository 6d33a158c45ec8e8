"""A re-ranker that lies in a folder, whichever kind it is: what reads pairs, and what makes their tokens."""

from __future__ import annotations

from pathlib import Path

from training.encoders.rerankers.late_encoder import LateEncoder, LateTokenizer, is_late, open_late
from training.encoders.rerankers.pair_encoder import PairEncoder
from training.encoders.tokens.pairs import PairTokenizer


def load_reranker(folder: Path) -> PairEncoder | LateEncoder:
    """The model. Raises ArtifactError: it is no re-ranker."""
    return LateEncoder.load(folder) if is_late(folder) else PairEncoder.load(folder)


def reranker_tokenizer(folder: Path, max_length: int | None = None) -> PairTokenizer | LateTokenizer:
    """Texts to tokens. Args: max_length: of a pair; None, and with late interaction always: what the folder says."""
    return LateTokenizer(open_late(folder)) if is_late(folder) else PairTokenizer(folder, max_length)
