"""What a model's folder says about itself, read before anything of it is copied or loaded: kinds that we do not run are refused.

A kind that is not run as its authors meant it would still give vectors, only other ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ConfigError

FURTHER = ("Pooling", "Normalize", "Dense", "LayerNorm", "Dropout")
"""Modules of sentence-transformers that may follow the first one."""
WITHOUT_FILES = ("Normalize", "Dropout")
"""Modules whose folder may be missing: git keeps no empty folder."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files one of which holds a tokenizer's words; others keep them in a *.model file."""
TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
OPTIONS: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": (TEXT_ONLY,),
    "module_output_name": ("token_embeddings",),
    "query_expansion": (None,),
    "query_length": (None,),
    "document_length": (None,),
    "processing_kwargs": (None, {}),
    "tokenizer_name_or_path": (None,),
}
"""Options of a Transformer module that change vectors -> the values that we run."""
FIRST_CONFIGS = tuple(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names under which the options of a Transformer module lie, in the order in which sentence-transformers looks."""


class Module(NamedTuple):
    """An entry of modules.json."""

    path: str
    """Its sub-folder; "" is the model's folder itself."""
    kind: str
    """The class's name without its package."""


def check_folder(source: Path) -> None:
    """Refuse a model that we would run otherwise than its authors do.

    Raises:
        ConfigError: modules.json is no list of modules, or leaves the folder; a module, or the model itself, has code of its
            own; a module or an option that we do not run; an adapter of peft; no tokenizer.
    """
    modules = read_modules(source)
    root = source / modules[0].path if modules else source
    for folder in dict.fromkeys((source, root)):
        refuse_own_code(folder, source)
        if (folder / "adapter_config.json").exists():
            raise ConfigError(
                f"encoder.model: expected a whole model, found an adapter of peft in {source} (adapter_config.json), whose "
                f"weights are changes to another model; load both with peft, call merge_and_unload(), save the result with "
                f"save_pretrained, and give that folder"
            )
    if modules and modules[0].kind == "Transformer":
        _check_order(modules, source)
        _check_options(root, source)
        _check_pooling(source / modules[1].path, source)
    _refuse_truncation(source)
    if not any((root / name).exists() for name in TOKENIZERS) and not list(root.glob("*.model")):
        raise ConfigError(
            f"encoder.model: expected a tokenizer in {root}, found none of {', '.join(TOKENIZERS)}; give a complete model folder"
        )


def read_modules(source: Path) -> list[Module]:
    """The modules of a sentence-transformers folder; none of a plain Hugging Face one.

    Raises:
        ConfigError: as `check_folder`.
    """
    if not (source / "modules.json").exists():
        return []
    entries = _read_object(source / "modules.json", source, list)
    modules = []
    for number, entry in enumerate(entries):
        path, kind = (entry.get("path"), entry.get("type")) if isinstance(entry, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(kind, str) or not kind:
            raise _damaged(
                source / "modules.json", 'entries with "path" and "type"', f"{json.dumps(entry)[:200]} as entry {number}"
            )
        modules.append(_module(source, path, kind))
    if not modules:
        raise _damaged(source / "modules.json", "at least one module", "an empty list")
    return modules


def first_config(root: Path) -> dict[str, Any]:
    """The options of the Transformer module in `root`, under whichever name they lie; empty if there are none."""
    for name in FIRST_CONFIGS:
        if (root / name).exists():
            options: dict[str, Any] = _read_object(root / name, root, dict)
            if options:
                return options
    return {}


def refuse_own_code(folder: Path, source: Path) -> None:
    """Raises ConfigError: the model or the tokenizer in `folder` (of the model in `source`) has code of its own."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        entries = _read_object(path, source, dict).get("auto_map") if path.exists() else None
        if not entries:
            continue
        named = entries if isinstance(entries, dict) else {"AutoTokenizer": entries}
        used = {key: value for key, value in named.items() if key in ("AutoModel", "AutoConfig", "AutoTokenizer")}
        if used:
            raise _own_code(source, f"auto_map of {name} names {next(iter(used.values()))}")


def _module(source: Path, path: str, kind: str) -> Module:
    name = kind.rsplit(".", 1)[-1]
    if not kind.startswith("sentence_transformers."):
        raise _own_code(source, f"modules.json names {kind}")
    if not (source / path).resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            f"encoder.model: expected modules inside the model's folder, found the path {path!r} of {name} in "
            f"{source / 'modules.json'}, which leads out of it; give a model whose files are all in one folder"
        )
    if not (source / path).is_dir() and name not in WITHOUT_FILES:
        raise ConfigError(
            f"encoder.model: {source / 'modules.json'} names the module {name} in the folder {path!r}, which is missing; "
            f"download the model again, whole"
        )
    return Module(path, name)


def _own_code(source: Path, where: str) -> ConfigError:
    return ConfigError(
        f"encoder.model: the model in {source} has code of its own, which hardmine does not run ({where}); give a model that "
        f"transformers and sentence-transformers run without it"
    )


def _check_order(modules: Sequence[Module], source: Path) -> None:
    kinds = [module.kind for module in modules]
    if kinds[1:2] == ["Pooling"] and set(kinds[2:]) <= set(FURTHER) - {"Pooling"}:
        return
    raise ConfigError(
        f"encoder.model: expected a Transformer module, then Pooling, then any of {', '.join(FURTHER[1:])}, found "
        f"{', '.join(kinds)} in {source / 'modules.json'}; give an embedding model of these modules"
    )


def _check_options(root: Path, source: Path) -> None:
    options = first_config(root)
    for name, values in OPTIONS.items():
        if name in options and options[name] not in values:
            raise ConfigError(
                f"encoder.model: {source} sets {name} = {json.dumps(options[name])[:200]} for its Transformer module, which "
                f"hardmine does not run, so its vectors would be other ones; give a model that reads plain text"
            )


def _check_pooling(folder: Path, source: Path) -> None:
    config = _read_object(folder / "config.json", source, dict)
    modes = config.get("pooling_mode") or [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if config.get("include_prompt", True) is not True and "weightedmean" in str(modes):
        raise ConfigError(
            f"encoder.model: {folder / 'config.json'} pools by weightedmean and leaves the prompt out "
            f"(include_prompt = false), which hardmine does not do together; give another encoder.model"
        )


def _refuse_truncation(source: Path) -> None:
    path = source / "config_sentence_transformers.json"
    length = _read_object(path, source, dict).get("truncate_dim") if path.exists() else None
    if length:
        raise ConfigError(
            f"encoder.model: {path} cuts vectors to their first {length} dimensions (truncate_dim), which have no unit "
            f"length and are not what is trained here; take truncate_dim out of that file, and set training.matryoshka = "
            f"[{length}] if the first {length} dimensions alone must serve"
        )


def _read_object(path: Path, source: Path, kind: type) -> Any:
    if not path.exists():
        raise ConfigError(f"encoder.model: expected {path.name} in {path.parent}, found none; download the model again, whole")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, "JSON", f"{error}") from error
    if not isinstance(value, kind):
        raise _damaged(path, "a list" if kind is list else "an object", f"{json.dumps(value)[:100]}")
    return value


def _damaged(path: Path, expected: str, what: str) -> ConfigError:
    return ConfigError(f"encoder.model: expected {expected} in {path}, found {what}; download the model again, or mend that file")
