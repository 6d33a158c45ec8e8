"""The `adapter` encoder: a small network on frozen base vectors, for models too large or too far away to train.

    y = normalise(LayerNorm(x + W₂ relu(W₁ x + b₁) + b₂)),  x the normalised base vector, W₂ = 0 at the start

so that an untrained adapter ranks (up to the mean over dimensions that LayerNorm takes out) like the base model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.encoders import st_format
from training.encoders.base import Encoder
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.features import Features, Vectors


class AdapterEncoder(Encoder):
    """MLP with a residual path, LayerNorm and normalisation."""

    kind = "adapter"
    pads = False

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.up = nn.Linear(dimension, hidden)
        self.down = nn.Linear(hidden, dimension)
        self.norm = nn.LayerNorm(dimension)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    @classmethod
    def load(cls, folder: Path) -> AdapterEncoder:
        """From adapter.json and adapter.safetensors."""
        config = read_json(folder / "adapter.json")
        encoder = cls(config["dimension"], config["hidden"])
        encoder.load_state_dict(load_file(folder / "adapter.safetensors"))
        return encoder

    def collate(self, features: Features) -> dict[str, Tensor]:
        """The base vectors."""
        assert isinstance(features, Vectors)
        return {"vectors": torch.from_numpy(features.values)}

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[N, D] float32."""
        base = functional.normalize(inputs["vectors"], dim=-1).to(self.up.weight.dtype)  # bfloat16 weights
        moved = base + self.down(functional.relu(self.up(base)))
        return functional.normalize(self.norm(moved).float(), dim=-1)

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """adapter.json and adapter.safetensors."""
        write_json(folder / "adapter.json", {"dimension": self.dimension, "hidden": self.up.out_features})
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "adapter.safetensors")


def new_adapter_folder(folder: Path, dimension: int, hidden: int, seed: int) -> None:
    """An untrained adapter."""
    torch.manual_seed(seed)
    encoder = AdapterEncoder(dimension, hidden)
    encoder.save(folder, {name: value.detach() for name, value in encoder.state_dict().items()})


def export_with_base(adapter: AdapterEncoder, base: Path | None, folder: Path) -> None:
    """Base model and adapter as one sentence-transformers folder, built from its own modules only.

    The residual path goes through the ReLU as relu(x) − relu(−x): the first Dense carries [W₁x + b₁, x, −x].
    Without a base model the folder starts at the vectors: feed it {"sentence_embedding": vectors}.
    """
    modules: list[tuple[str, str]] = []
    if base is not None:
        st_format.copy_folder(base, folder, without_weights=False)
        modules = [(entry["path"], entry["type"]) for entry in read_json(base / "modules.json")]
    start = len(modules)
    names = [f"{start}_Normalize", f"{start + 1}_Dense", f"{start + 2}_Dense", f"{start + 3}_LayerNorm", f"{start + 4}_Normalize"]
    size = adapter.dimension
    eye = torch.eye(size)
    state = {name: value.detach().float().cpu() for name, value in adapter.state_dict().items()}
    st_format.write_normalize(folder / names[0])
    st_format.write_dense(
        folder / names[1],
        torch.cat([state["up.weight"], eye, -eye]),
        torch.cat([state["up.bias"], torch.zeros(2 * size)]),
        "torch.nn.modules.activation.ReLU",
    )
    st_format.write_dense(
        folder / names[2],
        torch.cat([state["down.weight"], eye, -eye], dim=1),
        state["down.bias"],
        "torch.nn.modules.linear.Identity",
    )
    st_format.write_layer_norm(folder / names[3], state["norm.weight"], state["norm.bias"])
    st_format.write_normalize(folder / names[4])
    kinds = [st_format.NORMALIZE, st_format.DENSE, st_format.DENSE, st_format.LAYER_NORM, st_format.NORMALIZE]
    st_format.write_modules(folder, [*modules, *zip(names, kinds, strict=True)])
    if base is None:
        st_format.write_prompts(folder, {})


def servable_folder(trained: Path, base: Path | None, target: Path) -> Path:
    """A trained model as a folder that SentenceTransformer opens: `trained` itself, or `target` with an adapter on its base.

    Args:
        base: the frozen base model, if there is one.
    """
    if not (trained / "adapter.json").exists():
        return trained
    export_with_base(AdapterEncoder.load(trained), base, target)
    return target
