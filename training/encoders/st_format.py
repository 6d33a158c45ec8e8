"""The sentence-transformers folder format: the small files that say what a folder's modules are.

Written by hand because importing sentence-transformers takes longer than a small round's training; the tests open
what is written here with `SentenceTransformer` itself and compare vectors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"
DENSE = "sentence_transformers.base.modules.dense.Dense"
LAYER_NORM = "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm"

OPTIONS = ("model_kwargs", "model_args", "config_kwargs", "config_args")
"""What a folder may say about how its model is to be loaded, which sentence-transformers follows."""
WEIGHTS = {".safetensors", ".bin", ".pt", ".h5", ".msgpack", ".onnx", ".ot", ".gguf"}
EXTRAS = {"onnx", "openvino", "reranker", ".git", ".cache", "eval", "runs"}
LEFTOVERS = (
    "README.md",
    ".gitattributes",
    ".gitignore",
    "data_config.json",
    "train*.py",
    "*train*_results.json",
    "*eval*_results.json",
    "all_results.json",
    "trainer_state.json",
    "training_args.*",
    "*.csv",
    "*.png",
    "events.out.tfevents.*",
)
"""Files that say how a model was trained and measured: of a model that is trained further they would be untrue."""


def read_json(path: Path) -> Any:
    """The JSON value of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def module_path(folder: Path, index: int) -> str:
    """Sub-folder of module `index`; "" is the folder itself, as of a plain Hugging Face model."""
    if not (folder / "modules.json").exists():
        return ""
    return str(read_json(folder / "modules.json")[index]["path"])


def write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """modules.json from (sub-folder, class) pairs."""
    write_json(
        folder / "modules.json",
        [{"idx": index, "name": str(index), "path": path, "type": kind} for index, (path, kind) in enumerate(modules)],
    )


def prompts(folder: Path) -> dict[str, str]:
    """The folder's prompts by name; empty if it has none."""
    path = folder / "config_sentence_transformers.json"
    if not path.exists():
        return {}
    return {name: text for name, text in (read_json(path).get("prompts") or {}).items() if text}


def default_prompt(folder: Path) -> str:
    """Name of the prompt that stands before a text of no particular side; "" where there is none."""
    path = folder / "config_sentence_transformers.json"
    return str(read_json(path).get("default_prompt_name") or "") if path.exists() else ""


def write_prompts(folder: Path, values: Mapping[str, str]) -> None:
    """Set the folder's prompts, keeping what else its configuration says."""
    path = folder / "config_sentence_transformers.json"
    config: dict[str, Any] = read_json(path) if path.exists() else {"similarity_fn_name": "cosine"}
    config["prompts"] = {"query": "", "document": "", **config.get("prompts", {}), **values}
    config.setdefault("default_prompt_name", None)
    write_json(path, config)


def write_pooling(folder: Path, mode: str, dimension: int) -> None:
    """Configuration of a Pooling module; mode: mean, cls or last. Whether it pools a prompt's tokens stays as it was."""
    path = folder / "config.json"
    include_prompt = read_json(path).get("include_prompt", True) if path.exists() else True
    write_json(
        path,
        {
            "word_embedding_dimension": dimension,
            "pooling_mode_cls_token": mode == "cls",
            "pooling_mode_mean_tokens": mode == "mean",
            "pooling_mode_lasttoken": mode == "last",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "include_prompt": include_prompt,
        },
    )


def read_pooling(folder: Path) -> tuple[str, int] | None:
    """(mode, dimension) of a Pooling module; None if it does something else than mean, cls or last."""
    config = read_json(folder / "config.json")
    names = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
    if "pooling_mode" in config:
        chosen = [config["pooling_mode"]] if isinstance(config["pooling_mode"], str) else list(config["pooling_mode"])
    else:
        chosen = [
            key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
    if len(chosen) != 1 or chosen[0] not in names:
        return None
    return names[chosen[0]], int(config.get("word_embedding_dimension") or config["embedding_dimension"])


def pools_prompt(folder: Path) -> bool:
    """Whether the model in `folder` pools the tokens of a prompt as well, which most do and INSTRUCTOR does not."""
    configs = [
        folder / entry["path"] / "config.json"
        for entry in read_json(folder / "modules.json")
        if entry["type"].endswith(".Pooling")
    ]
    return all(read_json(path).get("include_prompt", True) is True for path in configs)


def write_normalize(folder: Path) -> None:
    """Configuration of a Normalize module."""
    write_json(folder / "config.json", {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"})


def write_dense(folder: Path, weight: Tensor, bias: Tensor, activation: str) -> None:
    """A Dense module: activation(weight @ x + bias)."""
    write_json(
        folder / "config.json",
        {
            "in_features": weight.shape[1],
            "out_features": weight.shape[0],
            "bias": True,
            "activation_function": activation,
            "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding",
        },
    )
    save_file({"linear.weight": weight.contiguous(), "linear.bias": bias.contiguous()}, folder / "model.safetensors")


def write_layer_norm(folder: Path, weight: Tensor, bias: Tensor) -> None:
    """A LayerNorm module."""
    write_json(folder / "config.json", {"dimension": weight.shape[0]})
    save_file({"norm.weight": weight.contiguous(), "norm.bias": bias.contiguous()}, folder / "model.safetensors")


def save_tied(weights: dict[str, Tensor], path: Path) -> None:
    """Weights as safetensors, which refuses tied ones that share storage: each name gets its own copy."""
    seen: set[int] = set()
    copies = {}
    for name, value in weights.items():
        pointer = value.data_ptr()
        copies[name] = value.clone() if pointer in seen else value.contiguous()
        seen.add(pointer)
    save_file(copies, path, metadata={"format": "pt"})


def copy_folder(source: Path, target: Path, *, without_weights: bool) -> None:
    """Copy a model folder's files, leaving out LEFTOVERS and other formats of the same weights (or all weights of the root)."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        relative = file.relative_to(source)
        if EXTRAS & set(relative.parts) or any(relative.match(pattern) for pattern in LEFTOVERS):
            continue
        if file.suffix in WEIGHTS and (without_weights or file.suffix != ".safetensors"):
            continue
        if without_weights and relative.name.endswith(".safetensors.index.json"):
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / relative)
