"""One of two gloo ranks that makes a few DeepSpeed updates in every setting; `test_engine.py` judges what it wrote.

Run as `python engine_worker.py RANK FOLDER`; rank 0 writes FOLDER/report.json. Every run makes the same updates of the
same tiny BERT, so that each can be compared with plain torch on the joined batch. One launch for all, because starting
torch and DeepSpeed is most of the time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizerFast
from transformers.utils import logging

from cluster.errors import HardmineError
from cluster.storage.settings import StorageSettings
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.lora import add_lora, trained_parameters
from training.encoders.prepare.prepare import build_base
from training.encoders.tokens.features import Tokens
from training.engine.engine import Place, full_state, parameter_groups, set_learning_rate, start_engine
from training.engine.engine_state import load_state, loss_scale, save_state, set_loss_scale
from training.settings import EncoderSettings, LoraSettings, TrainingSettings

ROWS, CHUNKS, STEPS, RATE = 8, 4, 3, 1e-3
LORA = LoraSettings(rank=4, alpha=8.0)
CPU = torch.device("cpu")
State = dict[str, Tensor]


def write_bert(folder: Path) -> None:
    """A tiny BERT without dropout. Sizes are odd, so that two ranks cannot cut every weight into equal parts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(46))]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    torch.manual_seed(3)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=30,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=43,
            max_position_embeddings=17,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.2,
        )
    ).save_pretrained(folder)


def tokens_of(seed: int) -> Tokens:
    """Texts of 3 to 12 tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 13, ROWS)
    return Tokens(np.concatenate([[0], lengths.cumsum()]), rng.integers(5, 51, lengths.sum()).astype(np.int32))


def targets_of(seed: int, dimension: int) -> Tensor:
    return torch.randn(ROWS, dimension, generator=torch.Generator().manual_seed(seed))


def loss_of(vectors: Tensor, targets: Tensor) -> Tensor:
    """Mean over ROWS rows, so that the mean over ranks is that of the joined batch."""
    return -(vectors * targets).sum() / ROWS


def flat(state: State) -> Tensor:
    return torch.cat([state[name].double().flatten() for name in sorted(state)])


def new_encoder(folder: Path, lora: LoraSettings | None) -> Encoder:
    encoder = load_encoder(folder).train()
    return encoder if lora is None else add_lora(encoder, lora)


def plain_torch(folder: Path, settings: TrainingSettings) -> State:
    """The truth: one process, the joined batch, AdamW as its paper has it."""
    encoder = new_encoder(folder, settings.lora)
    optimizer = torch.optim.AdamW(parameter_groups(encoder, settings.weight_decay), lr=RATE, foreach=False, fused=False)
    for step in range(STEPS):
        optimizer.zero_grad()
        for rank in range(2):
            seed = 10 * step + rank
            (loss_of(encoder(encoder.collate(tokens_of(seed))), targets_of(seed, encoder.dimension)) / 2).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), settings.gradient_clipping)
        optimizer.step()
    return {name: value.detach().clone() for name, value in encoder.state_dict().items()}


def as_one_rank(saved: list[Path]) -> Path:
    """One file with whole parameters, of the files of several ranks."""
    pieces: dict[tuple[str, str], list[tuple[int, Tensor]]] = {}
    for path in saved:
        for key, tensor in load_file(path).items():
            name, kind, start = key.rsplit(":", 2)
            pieces.setdefault((name, kind), []).append((int(start), tensor))
    whole = {}
    for (name, kind), found in pieces.items():
        tensors = [tensor for _, tensor in sorted(found, key=lambda each: each[0])]
        whole[f"{name}:{kind}:0"] = tensors[0] if kind == "step" else torch.cat(tensors)
    path = saved[0].with_suffix(f".{os.getpid()}")
    save_file(whole, path)
    return path


class Runs:
    """Runs one setting after another on this rank and notes what came out."""

    def __init__(self, rank: int, folder: Path) -> None:
        self.rank, self.folder = rank, folder
        self.report: dict[str, dict[str, Any]] = {}
        self.states: dict[str, State] = {}

    def update(
        self,
        label: str,
        *,
        precision: str = "float32",
        chunks: int = 1,
        own: dict[str, Any] | None = None,
        resume: bool = False,
        **changes: Any,
    ) -> None:
        """A few updates; noted are what the engine says, the weights, and those of a run that went on from a checkpoint."""
        settings = TrainingSettings(batch_size=ROWS, gradient_clipping=0.5, grad_cache=chunks > 1, **changes)
        place = Place(self.rank, 2, CPU, precision == "bfloat16", precision == "float16")
        noted: dict[str, Any] = {}
        try:
            encoder = new_encoder(self.folder / "bert", settings.lora)
            noted["trained"] = trained_parameters(encoder)
            before = {name: value.clone() for name, value in encoder.state_dict().items()}
            engine = start_engine(encoder, settings, place, own=own)
            trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
            noted |= {
                "bucket": engine.zero_reduce_bucket_size(),
                "trained_in_engine": trained_parameters(encoder),
                "trained_names": trained,
            }
            start = full_state(engine, place)
            self._steps(engine, encoder, chunks, range(STEPS - 1))
            if resume:
                save_state(engine, place, self.folder / f"engine-{label}-{self.rank}")
                scale = loss_scale(engine)
            self._steps(engine, encoder, chunks, [STEPS - 1])
            noted["skipped"] = engine.skipped_steps
            self.states[label] = full_state(engine, place)
            if self.rank == 0:
                noted["start_moved"] = max(float((start[name] - before[name]).abs().max()) for name in trained)
                encoder.save(self.folder / f"saved-{label}", self.states[label])
            engine.destroy()
            if resume:
                dist.barrier()
                arguments = (label, settings, place, chunks, scale, own)
                noted["resumed"] = self._resumed(*arguments, one=False)
                noted["resumed_from_one"] = self._resumed(*arguments, one=True)
        except HardmineError as error:
            noted["error"] = f"{type(error).__name__}: {error}"
        self.report[label] = noted
        dist.barrier()

    def _resumed(
        self,
        label: str,
        settings: TrainingSettings,
        place: Place,
        chunks: int,
        scale: dict[str, float],
        own: dict[str, Any] | None,
        *,
        one: bool,
    ) -> float:
        """How far a run from the checkpoint ends, at most, from the one that was not interrupted; 0 but on rank 0.

        Args:
            one: the checkpoint is as a single rank would have saved it.
        """
        encoder = new_encoder(self.folder / "bert", settings.lora)
        engine = start_engine(encoder, settings, place, own=own)
        saved = sorted(self.folder.glob(f"engine-{label}-?"))
        load_state(engine, place, [as_one_rank(saved)] if one else saved)
        set_loss_scale(engine, scale)
        self._steps(engine, encoder, chunks, [STEPS - 1])
        state = full_state(engine, place)
        engine.destroy()
        return max([0.0, *(float((state[name] - self.states[label][name]).abs().max()) for name in state)])

    def _steps(self, engine: Any, encoder: Encoder, chunks: int, steps: Iterable[int]) -> None:
        set_learning_rate(engine, RATE)
        for step in steps:
            seed = 10 * step + self.rank
            tokens, targets = tokens_of(seed), targets_of(seed, encoder.dimension)
            for number, rows in enumerate(np.array_split(np.arange(ROWS), chunks)):
                if chunks > 1:
                    engine.set_gradient_accumulation_boundary(number + 1 == chunks)
                engine.backward(loss_of(engine(encoder.collate(tokens.take(rows))), targets[rows]))
            engine.step()

    def compare(self, label: str, want: State, start: State) -> None:
        """How far a run's weights ended from others, at most and as a share of how far those moved."""
        # softmax does not see a bias of all keys: its gradient is rounding, which AdamW blows up to full steps
        names = [name for name in self.report[label]["trained_names"] if "key.bias" not in name]
        got, truth, before = (flat({name: state[name] for name in names}) for state in (self.states[label], want, start))
        self.report[label] |= {
            "furthest": float((got - truth).abs().max()),
            "distance": float((got - truth).norm() / (truth - before).norm()),
        }


@contextmanager
def half_precision_allowed() -> Iterator[None]:
    """DeepSpeed asks whether the CPU multiplies float16 in hardware; torch computes it on any, only slowly."""
    from deepspeed.accelerator import get_accelerator

    kind = type(get_accelerator())
    asked = kind.is_fp16_supported
    kind.is_fp16_supported = lambda self: True
    try:
        yield
    finally:
        kind.is_fp16_supported = asked


def all_runs(runs: Runs) -> None:
    """Every setting."""
    for stage in (0, 1, 2, 3):
        runs.update(f"zero-{stage}", zero_stage=stage)
    for stage in (1, 2, 3):  # as on a GPU
        own = {"zero_optimization": {"overlap_comm": True, "contiguous_gradients": True, "reduce_bucket_size": 2_000}}
        runs.update(f"overlapped-{stage}", zero_stage=stage, own=own)
    for stage in (1, 2, 3):
        runs.update(f"offload-{stage}", zero_stage=stage, offload_optimizer=True, chunks=CHUNKS, resume=True)
    for stage in (0, 1, 3):
        runs.update(f"bfloat16-{stage}", zero_stage=stage, precision="bfloat16", chunks=CHUNKS, resume=True)
    runs.update("float16-refused", precision="float16")
    with half_precision_allowed():
        for stage in (1, 3):
            runs.update(
                f"float16-{stage}",
                zero_stage=stage,
                precision="float16",
                chunks=CHUNKS,
                offload_optimizer=stage == 3,
                resume=True,
            )
    runs.update("own-bfloat16", precision="bfloat16", own={"data_types": {"grad_accum_dtype": "fp32"}}, resume=True)
    runs.update("recomputed", zero_stage=3, activation_checkpointing=True)
    runs.update("own", own={"zero_optimization": {"reduce_bucket_size": 12_345}, "gradient_clipping": "auto"})
    runs.update("own-refused", own={"zero_optimization": {"reduce_bucket_size": -1}})
    for stage in (1, 3):
        runs.update(f"lora-{stage}", zero_stage=stage, lora=LORA)
    runs.update("lora-bfloat16", zero_stage=3, precision="bfloat16", lora=LORA, offload_optimizer=True, resume=True)
    runs.update("lora-recomputed", zero_stage=1, lora=LORA, activation_checkpointing=True)


def judge(runs: Runs, folder: Path) -> None:
    """Compare with plain torch, and the saved folders with the model that plain torch made."""
    bert = load_encoder(folder / "bert").encode(tokens_of(99))
    for adds in (None, LORA):
        settings = TrainingSettings(batch_size=ROWS, gradient_clipping=0.5, lora=adds)
        start, truth = new_encoder(folder / "bert", adds).state_dict(), plain_torch(folder / "bert", settings)
        unmerged = new_encoder(folder / "bert", adds)
        unmerged.load_state_dict(truth)
        vectors = unmerged.encode(tokens_of(99))
        for label in runs.states:
            if label.startswith("lora") == (adds is not None):
                runs.compare(label, truth, start)
                saved = load_encoder(folder / f"saved-{label}")
                runs.report[label] |= {
                    "names": sorted(saved.state_dict()),
                    "moved": float(np.abs(bert - vectors).max()),
                    "vectors": float(np.abs(saved.encode(tokens_of(99)) - vectors).max()),
                }


def main(rank: int, folder: Path) -> None:
    """Run everything as one rank."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # as Ray Train sets it; DeepSpeed reads it
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2, timeout=timedelta(seconds=180))
    if rank == 0:
        write_bert(folder / "plain")
        build_base(EncoderSettings(model=str(folder / "plain")), StorageSettings(), [], 0, folder / "bert")
    dist.barrier()
    runs = Runs(rank, folder)
    all_runs(runs)
    if rank == 0:
        judge(runs, folder)
        (folder / "report.json").write_text(json.dumps(runs.report))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
