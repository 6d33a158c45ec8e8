"""A model tried on a few texts before a run computes anything with it: what would fail in every later worker is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cluster.errors import ConfigError, one_paragraph
from cluster.tables.tables import F32, lists_to_csr
from training.encoders import st_format
from training.encoders.load import load_encoder
from training.encoders.tokens.features import Tokens
from training.encoders.tokens.tokenizer import Tokenizer
from training.encoders.transformer import encoder_class, quiet
from training.settings import EncoderSettings

TEXTS = ("a", "red shoe", "The quick brown fox jumps over the lazy dog, 42 times.")
LONG = 512
"""Most tokens of the longest text that is tried."""
SAME = 0.999
"""Least cosine of a text's vectors alone and among longer texts."""


def try_model(folder: Path, settings: EncoderSettings) -> int:
    """Load the model that `build_base` left in `folder` and embed a few texts with it.

    Returns:
        The length of its vectors.

    Raises:
        ConfigError: a weight is missing or damaged, or has another shape than the configuration says, or a vector is not finite
            or depends on what is embedded with it.
    """
    with reading_model(settings.model):
        quiet()
        if settings.kind != "static":
            root = folder / st_format.module_path(folder, 0)
            _refuse_segments(root, settings)
            _check_weights(root, settings)
        encoder = load_encoder(folder)
        features = _features(folder, settings)
        together = encoder.encode(features, budget_tokens=int(features.lengths.max(initial=1)) * len(features))
        alone = np.concatenate([encoder.encode(features.take(np.array([row]))) for row in range(len(features))])
    _check_vectors(together, alone, settings)
    return encoder.dimension


@contextmanager
def reading_model(name: str | None) -> Iterator[None]:
    """Raises ConfigError: the user's model folder is not what it should be. What we made ourselves fails as it is."""
    from safetensors import SafetensorError

    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, ImportError, SafetensorError) as error:
        if name is None or getattr(error, "errno", None):  # the disk, not the model
            raise
        raise ConfigError(
            f"encoder.model: expected a complete model at {name}, found one that cannot be read "
            f"({type(error).__name__}: {one_paragraph(str(error))[:300]}); download it again, or give "
            f"another one"
        ) from error


def _features(folder: Path, settings: EncoderSettings) -> Tokens:
    """The tokens of a few texts, the last one as long as the model reads, or LONG tokens."""
    import pyarrow as pa

    column = Tokenizer(folder, settings)([*TEXTS, f"{TEXTS[-1]} " * LONG], "")
    offsets, values = lists_to_csr(pa.chunked_array([column]))
    return (
        Tokens(offsets, values.astype(np.int32)) if settings.kind == "static" else _cut(Tokens(offsets, values.astype(np.int32)))
    )


def _cut(tokens: Tokens) -> Tokens:
    kept = np.minimum(tokens.lengths, LONG)
    rows = np.repeat(tokens.offsets[:-1], kept) + np.concatenate([np.arange(length) for length in kept])
    return Tokens(np.concatenate([[0], np.cumsum(kept)]), tokens.values[rows])


def _refuse_segments(root: Path, settings: EncoderSettings) -> None:
    """Token lists carry no segments: a tokenizer that gives a single text another one than 0 (XLNet) needs them."""
    from transformers import AutoTokenizer

    if any(AutoTokenizer.from_pretrained(str(root))(TEXTS[-1]).get("token_type_ids", [])):
        raise ConfigError(
            f"encoder.model: the tokenizer of {settings.model} puts the tokens of one text into several segments "
            f"(token_type_ids, as XLNet's does), which hardmine does not hand on; give another encoder.model"
        )


def _check_weights(root: Path, settings: EncoderSettings) -> None:
    """A weight that the files lack is drawn at random, without a word from transformers that anybody would see."""
    model_class = encoder_class(root)
    if model_class is None:
        return
    _, report = model_class.from_pretrained(str(root), dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True)
    for name, got, expected in sorted(report["mismatched_keys"]):
        raise ConfigError(
            f"encoder.model: expected weights of the shapes that config.json of {settings.model} says, found {name} of "
            f"{list(got)} where {model_class.__name__} has {list(expected)}; take all files of one model"
        )
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name.split("."))
    if missing:
        raise ConfigError(
            f"encoder.model: the weights of {settings.model} lack {len(missing)} of those that its architecture "
            f"({model_class.__name__}) needs, {missing[0]} for one, which would be drawn at random; give the complete model"
        )


def _check_vectors(together: F32, alone: F32, settings: EncoderSettings) -> None:
    if not np.isfinite(together).all() or not np.isfinite(alone).all():
        raise ConfigError(
            f"encoder.model: the model at {settings.model} gives vectors with NaN or infinity for short English texts; its "
            f"weights are damaged: download it again, or give another one"
        )
    cosines = (together * alone).sum(axis=1)
    wrong = int(np.argmin(cosines))
    if cosines[wrong] < SAME and alone[wrong].any():
        raise ConfigError(
            f"encoder.model: the vector of a text should not depend on the texts that are embedded with it, but the model at "
            f"{settings.model} gives two with a cosine of {cosines[wrong]:.3f}, alone and among longer texts; it does not "
            f"heed the attention mask: give another one"
        )
