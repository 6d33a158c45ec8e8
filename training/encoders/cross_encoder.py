"""A model that scores pairs, most often a cross-encoder: one number says how well a query and an item fit.

It is the teacher whose second opinion mining may ask for, or a re-ranker. What is trained as one is `pair_encoder`, or
`late_encoder`, which reads them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from cluster.storage.model_folders import Manifest, fetch_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64
from training.encoders import st_format
from training.encoders.prepare.check import first_config, read_modules, refuse_own_code
from training.encoders.st_format import OPTIONS, read_json
from training.encoders.tokens.lengths import model_limit

KINDS = ("ForSequenceClassification", "ForCausalLM")
"""How the architectures of cross-encoders end: with a head of one score, or a language model that answers yes or no."""
REPORT_EVERY = 32
"""Batches of sentence-transformers between two reports."""
BATCH_PAIRS = 64
"""Pairs in one of them."""
PAIRS_AT_ONCE = 2**15
"""Pairs that are sorted by length together."""

Reader = Callable[[Sequence[str], Sequence[str], Callable[[int], None]], F32]
"""(queries, items, on_progress) of equal length -> scores [P] float32; on_progress is told how many pairs are read."""


def copy_cross_encoder(source: Path, max_length: int | None, target: Path) -> None:
    """The cross-encoder in `source` as a folder with safetensors only, after it has read a pair.

    Raises:
        ConfigError: it is another kind of model, has code of its own, gives other than one score, or cannot read `max_length`
            tokens.
    """
    check_reads_pairs(source)
    for folder in dict.fromkeys((source, source / _root(source))):
        refuse_own_code(folder, source)
    st_format.copy_folder(source, target, without_weights=False)
    if not list(target.rglob("*.safetensors")):  # older models ship pickles only: transformers reads them with weights_only
        _load(source, None).save_pretrained(str(target), create_model_card=False)
    root = target / _root(target)
    limit = model_limit(root)
    if max_length is not None and max_length > limit:
        raise ConfigError(
            f"mining.teacher.max_length = {max_length} is more than the {limit} tokens that the model in "
            f"{source} reads; set it to {limit} or less"
        )
    model = _load(target, max_length)
    if model.num_labels != 1:
        raise ConfigError(
            f"mining.teacher.model: expected a cross-encoder with one score for a pair, found a classifier of "
            f"{model.num_labels} classes in {source}; give one that was trained to rank"
        )
    score = float(model.predict([("a query", "an item")], show_progress_bar=False)[0])
    if not math.isfinite(score):
        raise ConfigError(
            f"mining.teacher.model: the model in {source} gives {score} for a pair of short texts; its weights "
            f"are damaged: download it again, or give another one"
        )


def check_reads_pairs(source: Path) -> None:
    """Raises ConfigError: the folder holds an embedding model, or one without a head that scores pairs."""
    architecture, kinds = describe(source)
    if "Pooling" in kinds or "StaticEmbedding" in kinds:
        raise ConfigError(
            f"mining.teacher.model: expected a cross-encoder, found an embedding model in {source} (its modules "
            f'are {", ".join(kinds)}); set mining.teacher.kind = "encoder", or give a cross-encoder'
        )
    if not architecture.endswith(KINDS) and kinds[-1:] != ["Dense"]:
        raise ConfigError(
            f"mining.teacher.model: expected a cross-encoder, found {architecture} in {source}, which has no "
            f"head that scores a pair; give a model that ends in ForSequenceClassification, or set "
            f'mining.teacher.kind = "encoder" if it is an embedding model'
        )


def describe(source: Path) -> tuple[str, list[str]]:
    """(architecture of the model's first part, kinds of its modules; none in a plain Hugging Face folder)."""
    modules = read_modules(source)
    config = source / _root(source) / "config.json"
    architectures = read_json(config).get("architectures") if config.exists() else None
    return (architectures or ["a model of no architecture"])[0], [module.kind for module in modules]


def _root(folder: Path) -> str:
    modules = read_modules(folder)
    return modules[0].path if modules else ""


def _load(folder: Path, max_length: int | None, device: str = "cpu") -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    return CrossEncoder(
        str(folder), device=device, max_length=max_length, local_files_only=True, model_kwargs={"dtype": torch.float32}
    )


@dataclass(frozen=True)
class MakeCrossEncoder:
    """Loads the model; called once in each actor."""

    store: Store
    files: Manifest
    prefix: str
    threads: int
    gpu: bool
    bfloat16: bool
    max_length: int | None
    """Tokens of a pair; None: what the model reads."""

    def __call__(self) -> Reader:
        """The reader."""
        import torch

        torch.set_num_threads(self.threads)
        folder = fetch_folder(self.store, self.files, self.prefix)
        return self._packed(folder) or self._predicting(folder)

    def _packed(self, folder: Path) -> Reader | None:
        """Pairs in packs of like length under a token budget, each text tokenised once; None: a cross-encoder that needs
        sentence-transformers."""
        import torch

        from training.encoders.compute.packed import pack_linears
        from training.encoders.rerankers.late_encoder import is_late
        from training.encoders.rerankers.load import load_reranker, reranker_tokenizer
        from training.encoders.rerankers.pair_encoder import activation_of

        late = is_late(folder)
        if not late and not _reads_plain_pairs(folder):
            return None
        try:
            tokenizer = reranker_tokenizer(folder, self.max_length)
        except ConfigError:  # it joins texts in a way of its own
            return None
        model, activation = load_reranker(folder), torch.nn.Identity() if late else activation_of(folder)
        if self.gpu:
            model.to("cuda")
        else:
            pack_linears(model, torch.bfloat16 if self.bfloat16 else torch.float32)

        def read(queries: Sequence[str], items: Sequence[str], on_progress: Callable[[int], None]) -> F32:
            scores = np.empty(len(queries), np.float32)
            for start in range(0, len(queries), PAIRS_AT_ONCE):
                some = slice(start, start + PAIRS_AT_ONCE)
                (asked, query_rows), (shown, item_rows) = _distinct(queries[some]), _distinct(items[some])
                pairs = tokenizer.template.join(tokenizer.queries(asked), tokenizer(shown), query_rows, item_rows)
                report = partial(_report, on_progress, start)
                logits = model.encode(pairs, bfloat16=self.bfloat16, on_progress=report)
                scores[some] = activation(torch.from_numpy(logits[:, 0])).numpy()
            return scores

        return read

    def _predicting(self, folder: Path) -> Reader:
        """Pairs in batches of like length, by sentence-transformers."""
        import torch

        device = "cuda" if self.gpu else "cpu"
        model = _load(folder, self.max_length, device)
        activation = model.activation_fn
        # in bfloat16 the largest scores of a sigmoid are 1/256 apart, so that all good pairs would have the same one
        model.activation_fn = lambda logits: activation(logits.float())

        def read(queries: Sequence[str], items: Sequence[str], on_progress: Callable[[int], None]) -> F32:
            with torch.autocast(device, dtype=torch.bfloat16, enabled=self.bfloat16):
                return read_sorted(model, queries, items, BATCH_PAIRS, on_progress)

        return read


def _reads_plain_pairs(folder: Path) -> bool:
    """Whether a cross-encoder is one model of transformers, loaded by its configuration alone, with no prompt."""
    architecture, kinds = describe(folder)
    return (
        architecture.endswith("ForSequenceClassification")
        and kinds in ([], ["Transformer"])
        and not st_format.default_prompt(folder)
        and not any(first_config(folder / _root(folder)).get(name) for name in OPTIONS)
    )


def _report(on_progress: Callable[[int], None], before: int, pairs: int) -> None:
    on_progress(before + pairs)


def _distinct(texts: Sequence[str]) -> tuple[list[str], I64]:
    """(each text once, [P] the number of each pair's text)."""
    numbers: dict[str, int] = {}
    rows = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))
    return list(numbers), rows


def read_sorted(
    model: Any, queries: Sequence[str], items: Sequence[str], batch_pairs: int, on_progress: Callable[[int], None]
) -> F32:
    """Scores of pairs, read in batches of like length, the longest first.

    A batch that does not fit the GPU's memory is halved, and so are all after it. A pair's score depends on its batch
    only by float32 rounding.

    Args:
        model: a sentence-transformers CrossEncoder; its own activation (most often a sigmoid) is applied.
    """
    import torch

    order = np.argsort([-len(query) - len(item) for query, item in zip(queries, items, strict=True)], kind="stable")
    scores = np.empty(len(order), np.float32)
    start, batch = 0, batch_pairs
    while start < len(order):
        some = order[start : start + batch * REPORT_EVERY]
        try:
            scores[some] = model.predict(
                [(queries[pair], items[pair]) for pair in some], batch_size=batch, show_progress_bar=False
            )
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            torch.cuda.empty_cache()
            continue
        start += len(some)
        on_progress(start)
    return scores
