"""What tells one model from another by its content: digests of all that its vectors depend on, and of nothing else.

Another name, another folder, an edited model card or other shards of the same weights are the same model. Another prompt,
another pooling or other weights of the same width are not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import ArtifactError
from cluster.storage.digests import record_digest
from jobs.record.usage import RERANKER

NOT_THE_MODEL = ("README.md", ".gitattributes", ".gitignore", "*.safetensors.index.json", "*.py", "LICENSE*")
"""Files that no vector depends on. (hardmine runs no code of a model.)"""
WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "spiece*")
PROMPTS = ("config_sentence_transformers.json",)
POOLING = ("modules.json", "*_*/*.json")
WHO_WROTE_IT = frozenset({"_name_or_path", "name_or_path", "transformers_version", "__version__", "torch_dtype", "dtype"})
"""Keys of a JSON file that say who wrote it, or from where."""


def model_marks(folder: Path) -> dict[str, str]:
    """SHA-256 of a model's weights, tokenizer, prompts, pooling and architecture.

    Memory: one tensor.

    Raises:
        ArtifactError: there is no model, or a file of weights is cut off.
    """
    kinds: dict[str, list[Path]] = {name: [] for name in ("weights", "tokenizer", "prompts", "pooling", "architecture")}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        relative = file.relative_to(folder)
        if relative.parts[0] == RERANKER:  # no vector depends on it
            continue
        if not any(relative.match(pattern) for pattern in NOT_THE_MODEL) and not relative.name.startswith("."):
            kinds[_kind(relative)].append(file)
    if not any(kinds.values()):
        raise ArtifactError(f"expected a model in {folder}, found no file of one; give the folder of a model")
    marks = {name: _files_digest(folder, files) for name, files in kinds.items() if name != "weights"}
    return {"weights": _weights_digest(folder, kinds["weights"])} | marks


def reranker_mark(folder: Path | None) -> str | None:
    """SHA-256 of the re-ranker in a model's folder; None: there is none."""
    if folder is None or not (folder / RERANKER).is_dir():
        return None
    return record_digest(model_marks(folder / RERANKER))


def _kind(relative: Path) -> str:
    for name, patterns in (("weights", WEIGHTS), ("tokenizer", TOKENIZER), ("prompts", PROMPTS), ("pooling", POOLING)):
        if any(relative.match(pattern) for pattern in patterns):
            return name
    return "architecture"


def _files_digest(folder: Path, files: list[Path]) -> str:
    return record_digest({file.relative_to(folder).as_posix(): _content(file) for file in files})


def _content(file: Path) -> Any:
    """A JSON file's value without what says who wrote it; of any other file its digest."""
    data = file.read_bytes()
    if file.suffix == ".json":
        try:
            return _without(json.loads(data), file.name)
        except ValueError:
            pass
    return hashlib.sha256(data).hexdigest()


def _without(value: Any, file: str) -> Any:
    if not isinstance(value, dict) or file in ("tokenizer.json", "vocab.json"):
        return value
    kept = {key: inner for key, inner in value.items() if key not in WHO_WROTE_IT}
    if file == "config_sentence_transformers.json":  # an empty prompt is no prompt
        kept["prompts"] = {name: text for name, text in (value.get("prompts") or {}).items() if text}
    return kept


def _weights_digest(folder: Path, files: list[Path]) -> str:
    """Of every tensor's name, type, shape and numbers, whichever file it lies in."""
    tensors: dict[str, str] = {}
    for file in files:
        module = file.parent.relative_to(folder).as_posix()
        if file.suffix == ".safetensors":
            tensors |= {f"{module}/{name}": mark for name, mark in _tensors(file)}
        else:
            with file.open("rb") as stream:
                tensors[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return record_digest(tensors)


def _tensors(file: Path) -> Iterator[tuple[str, str]]:
    """(name, digest) of each tensor of a safetensors file: 8 bytes of length, a JSON header, the numbers."""
    with file.open("rb") as stream:
        try:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        except (ValueError, MemoryError, OverflowError) as error:
            raise ArtifactError(
                f"{file} is no file of weights: it was cut off or damaged; take the model's files again"
            ) from error
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            stream.seek(8 + length + start)
            data = stream.read(stop - start)
            if len(data) != stop - start:
                raise ArtifactError(f"{file} ends before its weight {name!r} does: it was cut off; take the model's files again")
            digest = hashlib.sha256(json.dumps([entry["dtype"], entry["shape"]]).encode())
            digest.update(data)
            yield name, digest.hexdigest()
