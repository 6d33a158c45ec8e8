"""The model a run starts from, as one folder of known content, and the tokens its encoder reads.

Runs once per run, in a worker: a hub name, a local or s3:// folder, or nothing at all becomes a folder in
sentence-transformers format that every later stage fetches by digest.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ConfigError, one_paragraph
from cluster.storage import StorageSettings, Store, is_s3
from cluster.tables import csr_to_lists, offsets_of
from training.encoders import st_format
from training.encoders.st_format import read_json, write_json
from training.settings import EncoderSettings


@dataclass(frozen=True)
class Prompts:
    """What is put before the texts of each side."""

    query: str
    item: str


def locate_model(name: str, storage: StorageSettings) -> Path:
    """A local folder with the model `name`: as it is, downloaded from S3, or from the hub.

    Raises:
        ConfigError: no such folder, and not on the hub (or the hub cannot be reached).
    """
    if is_s3(name):
        return _from_s3(name, storage)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists() and not (path / "modules.json").exists():
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


def _from_s3(url: str, storage: StorageSettings) -> Path:
    store = Store(url, storage)
    names = store.list()
    if not names:
        raise ConfigError(f"encoder.model: there is nothing below {url}; expected a model folder")
    local = Path(tempfile.mkdtemp(prefix="hardmine-base-"))
    for name in names:
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(store.read_bytes(name))
    return local


def build_base(settings: EncoderSettings, storage: StorageSettings, texts: Sequence[str], seed: int) -> Path:
    """The model to start from as a folder in sentence-transformers format.

    Args:
        texts: a sample of the corpus; a new static model's tokenizer is trained on it.

    Raises:
        ConfigError: the model is missing, of another kind, or cannot be loaded.
    """
    if settings.model is None and settings.kind != "static":
        raise ConfigError(
            f'encoder.kind = "{settings.kind}" without encoder.model has no model to start from; give '
            f"encoder.model, or (adapter) data with `vector` columns, which needs no base model"
        )
    target = Path(tempfile.mkdtemp(prefix="hardmine-base-"))
    if settings.model is None:
        _new_static(settings, texts, target, seed)
    else:
        _copy_model(settings, locate_model(settings.model, storage), target)
    used = read_prompts(target, settings)
    st_format.write_prompts(target, {"query": used.query, "document": used.item})
    return target


def _copy_model(settings: EncoderSettings, source: Path, target: Path) -> None:
    st_format.copy_folder(source, target, without_weights=False)
    if not (target / "modules.json").exists():
        _describe_plain(target, settings.pooling or "mean")
    kinds = [module["type"].rsplit(".", 1)[-1] for module in read_json(target / "modules.json")]
    wanted = "StaticEmbedding" if settings.kind == "static" else "Transformer"
    if kinds[0] != wanted:
        raise ConfigError(
            f"encoder.model: {source} starts with a {kinds[0]} module, but encoder.kind = "
            f'"{settings.kind}" needs {wanted}; change encoder.kind or encoder.model'
        )
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
        st_format.write_pooling(folder, settings.pooling, int(read_json(root / "config.json")["hidden_size"]))
    path = root / "sentence_bert_config.json"
    config = read_json(path) if path.exists() else {"do_lower_case": False}
    limit = model_limit(root)
    write_json(path, config | {"max_seq_length": min(settings.max_length or limit, limit)})


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
    import torch
    from safetensors.torch import save_file

    for entry in read_json(target / "modules.json"):
        pickle, kept = source / entry["path"] / "pytorch_model.bin", target / entry["path"] / "model.safetensors"
        if entry["type"].endswith(".Transformer") or not pickle.exists() or kept.exists():
            continue
        state = torch.load(pickle, map_location="cpu", weights_only=True)
        save_file({name: value.contiguous() for name, value in state.items()}, kept)


def _describe_plain(target: Path, pooling: str) -> None:
    """Make a plain Hugging Face folder a sentence-transformers one."""
    dimension = int(read_json(target / "config.json")["hidden_size"])
    st_format.write_modules(
        target, [("", st_format.TRANSFORMER), ("1_Pooling", st_format.POOLING), ("2_Normalize", st_format.NORMALIZE)]
    )
    st_format.write_pooling(target / "1_Pooling", pooling, dimension)
    st_format.write_normalize(target / "2_Normalize")


def _convert_weights(source: Path, target: Path) -> None:
    # older models ship pickles only: read with weights_only by transformers, kept as safetensors from here on
    from transformers import AutoModel

    try:
        AutoModel.from_pretrained(str(source)).save_pretrained(str(target))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"encoder.model: {source} cannot be loaded by transformers "
            f"({one_paragraph(str(error))[:300]}); give a complete model folder"
        ) from error


def model_limit(root: Path) -> int:
    """Most tokens the model at `root` reads: its own setting, else what its tokenizer and positions allow."""
    own = root / "sentence_bert_config.json"
    if own.exists() and read_json(own).get("max_seq_length"):
        return int(read_json(own)["max_seq_length"])
    limits = [int(read_json(root / "config.json").get("max_position_embeddings") or 512)]
    tokenizer = root / "tokenizer_config.json"
    if tokenizer.exists():
        limits.append(int(min(read_json(tokenizer).get("model_max_length") or 512, 1e6)))
    return min(limits)


def _new_static(settings: EncoderSettings, texts: Sequence[str], target: Path, seed: int) -> None:
    import torch

    from training.encoders.static import write_static_folder

    tokenizer = _train_tokenizer(texts, settings.vocabulary)
    if settings.max_length is not None:
        tokenizer.enable_truncation(settings.max_length)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(tokenizer.get_vocab_size(), settings.dimension, generator=generator) * 0.1
    rarity = torch.from_numpy(_rarity(tokenizer, texts))
    # sorted, because the vocabulary is written in an order that differs from run to run
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, sort_keys=True)
    write_static_folder(target, text, weights * rarity[:, None])


def _train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    def empty(**model: Any) -> Any:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", **model))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    tokenizer = empty()
    words = {
        word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    # the trainer numbers inner characters as a hash map happens to order the words, and breaks ties by these numbers;
    # "special" tokens are numbered first and in the order given, so every run comes to the same tokenizer
    inner = sorted({f"##{character}" for word in words for character in word[1:]})
    tokenizer.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=["[UNK]", *inner], min_frequency=2, show_progress=False),
    )
    trained = empty(vocab=tokenizer.get_vocab(with_added_tokens=True))  # where the inner characters are no longer special
    trained.add_special_tokens(["[UNK]"])
    return trained


def _rarity(tokenizer: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """a / (a + p(token)), a = 1e-3 (SIF, Arora 2017): frequent tokens start short, an untrained model matches words."""
    counts = np.zeros(tokenizer.get_vocab_size(), np.float64)
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(counts, encoding.ids, 1.0)
    weights: npt.NDArray[np.float32] = (1e-3 / (1e-3 + counts / max(1.0, counts.sum()))).astype(np.float32)
    return weights


def read_prompts(folder: Path, settings: EncoderSettings) -> Prompts:
    """The prompts in force: the settings', else the folder's own."""
    own = st_format.prompts(folder)
    query = settings.query_prompt if settings.query_prompt is not None else own.get("query", "")
    item = settings.item_prompt
    if item is None:
        item = own.get("document", own.get("passage", ""))
    return Prompts(query, item)


class Tokenizer:
    """Texts to token lists, as the encoder's own `SentenceTransformer.encode` would see them."""

    def __init__(self, folder: Path, settings: EncoderSettings) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self._static = settings.kind == "static"
        root = folder / st_format.module_path(folder, 0)
        if self._static:
            from tokenizers import Tokenizer as Fast

            self._tokenizer: Any = Fast.from_file(str(root / "tokenizer.json"))
            self._tokenizer.no_padding()
            return
        from tokenizers import normalizers
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(root))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the tokenizer of {folder} cannot be loaded ({one_paragraph(str(error))[:300]}); give a "
                f"complete model folder as encoder.model"
            ) from error
        self._max_length = model_limit(root)
        own = root / "sentence_bert_config.json"
        if own.exists() and read_json(own).get("do_lower_case"):
            backend = self._tokenizer.backend_tokenizer
            steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
            backend.normalizer = normalizers.Sequence(steps)

    def __call__(self, texts: Sequence[str], prompt: str) -> pa.ListArray:
        """Token ids of each text, list<i32>, special tokens included, cut to the model's length."""
        full = [prompt + text for text in texts]
        if self._static:
            ids = [encoding.ids for encoding in self._tokenizer.encode_batch(full, add_special_tokens=False)]
        else:
            ids = (
                self._tokenizer(
                    full, truncation=True, max_length=self._max_length, return_attention_mask=False, return_token_type_ids=False
                )["input_ids"]
                if full
                else []
            )
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        flat = np.fromiter((token for row in ids for token in row), np.int32, int(lengths.sum()))
        return csr_to_lists(offsets_of(lengths), flat)
