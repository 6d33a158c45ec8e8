"""The model a run starts from, as one folder of known content.

Runs once per run, in a worker: a hub name, a local or s3:// folder, or nothing at all becomes a folder in
sentence-transformers format that every later stage fetches by digest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from cluster.errors import ConfigError, one_paragraph
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store, is_s3
from training.encoders import st_format
from training.encoders.prepare.check import check_folder, first_config, read_modules
from training.encoders.prepare.new_static import new_static_folder
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.lengths import model_limit, position_limit
from training.encoders.tokens.tokenizer import read_prompts
from training.settings import EncoderSettings


@contextmanager
def model_folder(name: str, storage: StorageSettings) -> Iterator[Path]:
    """A local folder with the model `name`: as it is, from the hub, or downloaded from S3 and removed afterwards.

    Raises:
        ConfigError: no such folder, and not on the hub (or the hub cannot be reached).
    """
    if not is_s3(name):
        yield _local_or_hub(name)
        return
    store = Store(name, storage)
    names = store.list()
    if not names:
        raise ConfigError(f"encoder.model: there is nothing below {name}; expected a model folder")
    with tempfile.TemporaryDirectory(prefix="hardmine-download-") as local:
        for file in names:
            (Path(local) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(local) / file).write_bytes(store.read_bytes(file))
        yield Path(local)


def _local_or_hub(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / file).exists() for file in ("config.json", "modules.json", "adapter_config.json")):
            raise ConfigError(
                f"encoder.model: {path} is a folder without config.json or modules.json; expected a "
                f"Hugging Face or sentence-transformers model folder"
            )
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"encoder.model: there is no folder {name} (looked in {Path.cwd()}); give a model folder, an "
            f's3:// folder, or a hub name such as "sentence-transformers/all-MiniLM-L6-v2"'
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.onnx", "*.h5", "*.msgpack", "onnx/*", "openvino/*"]))
    except Exception as error:  # the hub client raises OSError, HTTP and validation errors without a common base
        raise ConfigError(
            f"encoder.model: {name!r} is no folder here, and the hub did not give it "
            f"({type(error).__name__}: {one_paragraph(str(error))[:200]}); check the name, or download "
            f"it and give its folder"
        ) from error


def read_licence(folder: Path) -> dict[str, str]:
    """license, license_name and license_link of the model card in `folder`, as far as it has them."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        card = ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):  # no card, or one that nobody can read
        return {}
    return {key: str(card[key]) for key in ("license", "license_name", "license_link") if card.get(key)}


def build_base(settings: EncoderSettings, storage: StorageSettings, texts: Sequence[str], seed: int, target: Path) -> Path:
    """The model to start from as a folder in sentence-transformers format.

    Args:
        texts: a sample of the corpus; a new static model's tokenizer is trained on it.
        target: where it goes.

    Returns:
        `target`.

    Raises:
        ConfigError: the model is missing, of a kind that we do not run, or cannot be loaded.
    """
    if settings.model is None and settings.kind != "static":
        raise ConfigError(
            f'encoder.kind = "{settings.kind}" without encoder.model has no model to start from; give '
            f"encoder.model, or (adapter) data with `vector` columns, which needs no base model"
        )
    if settings.model is None:
        new_static_folder(target, texts, settings, seed)
    else:
        with model_folder(settings.model, storage) as source:
            _copy_model(settings, source, target)
    used = read_prompts(target, settings)
    st_format.write_prompts(target, {"query": used.query, "document": used.item})
    return target


def _copy_model(settings: EncoderSettings, source: Path, target: Path) -> None:
    wanted = "StaticEmbedding" if settings.kind == "static" else "Transformer"
    first = next((module.kind for module in read_modules(source)), "Transformer")
    if first != wanted:
        raise ConfigError(
            f"encoder.model: {source} starts with a {first} module, but encoder.kind = "
            f'"{settings.kind}" needs {wanted}; change encoder.kind or encoder.model'
        )
    check_folder(source)
    st_format.copy_folder(source, target, without_weights=False)
    if not (target / "modules.json").exists():
        _describe_plain(target, settings.pooling)
    kinds = [module.kind for module in read_modules(target)]
    _convert_pickles(source, target)
    if wanted == "Transformer":
        _shape_transformer(settings, source, target, kinds)
    else:
        _shape_static(settings, source, target, kinds)
    if kinds[-1] != "Normalize":  # scores are cosines: the exported model must give unit vectors as well
        modules = [(entry["path"], entry["type"]) for entry in read_json(target / "modules.json")]
        name = f"{len(modules)}_Normalize"
        st_format.write_modules(target, [*modules, (name, st_format.NORMALIZE)])
        st_format.write_normalize(target / name)


def _shape_transformer(settings: EncoderSettings, source: Path, target: Path, kinds: list[str]) -> None:
    root = target / st_format.module_path(target, 0)
    if not list(root.glob("*.safetensors")):
        _convert_weights(source / st_format.module_path(target, 0), root)
    if settings.pooling is not None and "Pooling" in kinds:
        folder = target / st_format.module_path(target, kinds.index("Pooling"))
        st_format.write_pooling(folder, settings.pooling, _hidden_size(root))
    positions = position_limit(root)
    if settings.max_length and positions and settings.max_length > positions:
        raise ConfigError(
            f"encoder.max_length = {settings.max_length} is more than the {positions} tokens that the model in {source} "
            f"has positions for; set it to {positions} or less"
        )
    _add_padding(root, source)
    options = {"do_lower_case": False} | first_config(root)
    write_json(root / "sentence_bert_config.json", options | {"max_seq_length": settings.max_length or model_limit(root)})
    # weights are trained and kept in float32; sentence-transformers would round them to what this file says
    config = read_json(root / "config.json")
    config.pop("torch_dtype", None)
    write_json(root / "config.json", config | {"dtype": "float32"})


def _add_padding(root: Path, source: Path) -> None:
    """Give a tokenizer without a padding token one: it is masked, but without it sentence-transformers encodes nothing."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(root))
    if tokenizer.pad_token_id is not None:
        return
    token = tokenizer.eos_token or tokenizer.unk_token
    if token is None:
        raise ConfigError(
            f"encoder.model: expected a tokenizer with a padding token in {source}, found one with neither padding, nor end, "
            f"nor unknown token; set pad_token in its tokenizer_config.json"
        )
    tokenizer.pad_token = token
    tokenizer.save_pretrained(str(root))


def _shape_static(settings: EncoderSettings, source: Path, target: Path, kinds: list[str]) -> None:
    if set(kinds[1:]) - {"Normalize"}:
        raise ConfigError(
            f"encoder.model: {source} has the modules {kinds}; a static model is a StaticEmbedding alone "
            f"or with Normalize; give another encoder.model"
        )
    if settings.max_length is not None:
        from tokenizers import Tokenizer as Fast

        path = target / st_format.module_path(target, 0) / "tokenizer.json"
        tokenizer = Fast.from_file(str(path))
        tokenizer.enable_truncation(settings.max_length)
        tokenizer.save(str(path))


def _convert_pickles(source: Path, target: Path) -> None:
    # further modules of older models (a Dense layer) ship pickles, which are not copied
    from safetensors.torch import save_file

    for entry in read_json(target / "modules.json"):
        pickle, kept = source / entry["path"] / "pytorch_model.bin", target / entry["path"] / "model.safetensors"
        if entry["type"].endswith(".Transformer") or not pickle.exists() or kept.exists():
            continue
        save_file({name: value.contiguous() for name, value in _read_pickle(pickle).items()}, kept)


def _read_pickle(path: Path) -> dict[str, Any]:
    """The weights in a pickle that holds nothing else; any other could run code of its own."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"encoder.model: expected weights as safetensors, found the pickle {path}, which holds more than weights or is "
            f"damaged, and is not loaded because it could run code of its own; convert it where you trust it, with "
            f"save_pretrained or safetensors.torch.save_file, and give the converted folder"
        ) from error
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _describe_plain(target: Path, pooling: str | None) -> None:
    """Make a plain Hugging Face folder a sentence-transformers one."""
    st_format.write_modules(
        target, [("", st_format.TRANSFORMER), ("1_Pooling", st_format.POOLING), ("2_Normalize", st_format.NORMALIZE)]
    )
    # as sentence-transformers does with a plain folder
    architecture = str((read_json(target / "config.json").get("architectures") or [""])[0])
    usual = "last" if architecture.endswith("ForCausalLM") else "mean"
    st_format.write_pooling(target / "1_Pooling", pooling or usual, _hidden_size(target))
    st_format.write_normalize(target / "2_Normalize")


def _hidden_size(root: Path) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(str(root)).get_text_config().hidden_size)


def _convert_weights(source: Path, target: Path) -> None:
    """Weights of an older model, which ships pickles only, as safetensors."""
    from transformers import AutoModel

    for pickle in sorted(source.glob("pytorch_model*.bin")):
        _read_pickle(pickle)
    try:
        AutoModel.from_pretrained(str(source)).save_pretrained(str(target))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"encoder.model: {source} cannot be loaded by transformers "
            f"({one_paragraph(str(error))[:300]}); give a complete model folder"
        ) from error
