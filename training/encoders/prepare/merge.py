"""The average of a trained model and the one that it started from, tensor by tensor.

    θ = (1 - share) θ_start + share θ_trained

Fine-tuning stays in one basin of the loss, so the models on the line between both work, and those near the start forget less
(WiSE-FT: Wortsman 2022, arXiv 2109.01903; LM-Cocktail: Xiao 2023, arXiv 2311.13534). A line, not an arc (slerp): the angle
between a tensor and its fine-tuned self is small, and there both are the same.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cluster.errors import ArtifactError
from training.encoders.load import load_encoder


def merge_folders(trained: Path, start: Path, share: float, target: Path) -> float:
    """Write the average of two models to `target`: the trained one's folder with other weights.

    Computed in float64; whole numbers (positions) are the trained model's. In memory is one file of weights, and before that
    the start's model.

    Args:
        trained: a folder that an encoder has saved; additions (LoRA) are merged into its weights.
        share: of the trained model, 0 to 1.

    Returns:
        The cosine of all weights between start and trained model: how small the angle is.

    Raises:
        ArtifactError: the models do not have the same weights; names the first one.
    """
    squares = torch.zeros(3, dtype=torch.float64)
    with tempfile.TemporaryDirectory(prefix="hardmine-merge-") as scratch:
        encoder = load_encoder(start)  # saved again: a model from elsewhere may name its weights otherwise
        encoder.save(Path(scratch), {name: value.detach() for name, value in encoder.state_dict().items()})
        del encoder
        for file in sorted(path for path in trained.rglob("*") if path.is_file()):
            relative = file.relative_to(trained)
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            if file.suffix != ".safetensors":
                shutil.copyfile(file, target / relative)
                continue
            first = Path(scratch) / relative
            if _shapes(file) != _shapes(first):
                name = sorted(set(_shapes(file).items()) ^ set(_shapes(first).items()))[0][0]
                raise ArtifactError(
                    f"rounds.merge: expected weights of the same names and shapes before and after training, found another "
                    f"{name} in {relative}; remove rounds.merge"
                )
            with safe_open(file, "pt") as ours, safe_open(first, "pt") as theirs:
                merged = {}
                for name in _shapes(file):
                    merged[name] = ours.get_tensor(name)
                    if merged[name].is_floating_point():
                        begin, end = theirs.get_tensor(name).double(), merged[name].double()
                        merged[name] = ((1.0 - share) * begin + share * end).to(merged[name].dtype)
                        squares += torch.stack([begin.square().sum(), end.square().sum(), (begin * end).sum()])
                save_file(merged, target / relative, metadata=ours.metadata())
    return float(squares[2] / (squares[0] * squares[1]).sqrt())


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The weights in a file, ascending by name; {}: there is none."""
    if not file.exists():
        return {}
    with safe_open(file, "pt") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in sorted(weights.keys())}
