"""DeepSpeed's configuration: what the settings say, and a JSON file of the user's own merged into it.

Pure: neither torch nor deepspeed is imported, so that a file is checked as soon as the run's config is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cluster.errors import ConfigError
from training.settings import TrainingSettings

Precision = Literal["float32", "bfloat16", "float16"]
Tree = dict[str, Any]

SHORT: dict[Precision, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""DeepSpeed's names of data types."""

REFUSED = {
    "optimizer": "the loop makes its AdamW itself: set training.learning_rate and training.weight_decay instead",
    "scheduler": "the loop sets the rate of every step: set training.learning_rate and training.warmup_fraction instead",
    "elasticity": "it would choose another batch size: set training.batch_size and training.accumulation instead",
    "tensor_parallel": "every rank encodes queries of its own with the whole model: set training.zero_stage = 3 to share it",
    "sequence_parallel_size": "every rank encodes queries of its own: set cluster.micro_batch_tokens to save memory",
}
"""Blocks that the loop cannot work with, and what to set instead."""

ALIASES = {
    "bfloat16": "bf16",
    "zero_optimization.param_persistence_threshold": "zero_optimization.stage3_param_persistence_threshold",
}
"""Second names of keys that we write: with both in one configuration DeepSpeed takes one of them without a word."""


@dataclass(frozen=True)
class Fixed:
    """A key whose value a person chooses with a setting, or that the loop relies on."""

    key: str
    value: Any
    why: str
    """What says so, with our value: "training.zero_stage = 1"."""
    change: Callable[[Any], str | None] = lambda found: None
    """How to get the value that the file has; None: not at all."""
    keep: bool = True
    """False: a second form of a key that we write; it is taken out where it agrees."""


def read_deepspeed(path: str) -> Tree:
    """The user's own configuration.

    Raises:
        ConfigError: no such file, not readable, or no JSON object.
    """
    if "://" in path:
        raise ConfigError(
            f"training.deepspeed: expected a local JSON file, found the address {path}; copy the file beside "
            f"the run's config and name that"
        )
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            f"training.deepspeed: there is no file {path}; give a DeepSpeed JSON file, or take the setting out"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"training.deepspeed: {path} cannot be read ({error}); give a DeepSpeed JSON file") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(
            f"training.deepspeed: {path} is not valid JSON: {error}; comments and trailing commas are not allowed there"
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(f"training.deepspeed: expected a JSON object {{…}} in {path}, found {_show(value)[:80]}")
    return value


def check_deepspeed(settings: TrainingSettings, own: Tree | None) -> None:
    """What can be said before it is known where training will run; `deepspeed_config` checks the rest.

    Raises:
        ConfigError: float16 without ZeRO, or the user's own configuration contradicts the settings.
    """
    precision = None if settings.precision == "auto" else settings.precision
    if precision == "float16" and not settings.zero_stage:
        # deepspeedai/DeepSpeed#8393: its unsharded optimizer divides by a loss scale that nobody multiplied with
        raise ConfigError(
            'training.precision = "float16" needs training.zero_stage = 1, 2 or 3, found 0: without ZeRO, '
            "DeepSpeed does not scale the loss and gradients vanish; set one of them otherwise"
        )
    if own is not None:
        _settle(settings, own, precision=precision, world=None)


def deepspeed_config(
    settings: TrainingSettings, *, precision: Precision, world: int, on_gpu: bool, own: Tree | None = None
) -> Tree:
    """The configuration that DeepSpeed gets. Every key that matters is written out: defaults moved between releases.

    Args:
        own: the user's. It decides what the settings leave open; "auto" means ours.

    Raises:
        ConfigError: `own` contradicts the settings (one error names every key), or float16 is asked for without ZeRO.
    """
    check_deepspeed(settings.model_copy(update={"precision": precision}), None)
    ours = _ours(settings, precision, on_gpu)
    return ours if own is None else _merge(ours, _settle(settings, own, precision=precision, world=world))


def _ours(settings: TrainingSettings, precision: Precision, on_gpu: bool) -> Tree:
    return {
        "train_micro_batch_size_per_gpu": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "managed_gradient_accumulation": True,
        "gradient_clipping": settings.gradient_clipping,
        "gradient_allreduce_op": "mean",
        "prescale_gradients": False,
        "communication_data_type": SHORT[precision],
        "data_types": {"grad_accum_dtype": _accumulated_in(settings, precision)},
        "bf16": {"enabled": precision == "bfloat16", "check_grad_overflow": True},
        # loss_scale 0: dynamic. It starts at 2^16, doubles after 1,000 good steps, halves after a second bad one
        "fp16": {
            "enabled": precision == "float16",
            "auto_cast": False,
            "loss_scale": 0,
            "initial_scale_power": 16,
            "loss_scale_window": 1000,
            "hysteresis": 2,
            "consecutive_hysteresis": False,
            "min_loss_scale": 1,
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": on_gpu,
            # against fragments of a GPU's memory; on a CPU it is only a copy into new pages in every step (with float16 DeepSpeed
            # 0.19 trains wrongly without it)
            "contiguous_gradients": on_gpu or precision != "float32",
            "reduce_scatter": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 10_000,
            "load_from_fp32_weights": True,
            "offload_optimizer": {"device": "cpu" if settings.offload_optimizer else "none", "pin_memory": on_gpu},
        },
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def _accumulated_in(settings: TrainingSettings, precision: Precision) -> str:
    """Data type in which the gradients of several backward passes are added up.

    float32 where DeepSpeed can: not without ZeRO, and with bfloat16 and ZeRO 1 it would take another optimizer of its
    own, whose checkpoints are others.
    """
    several = settings.accumulation > 1 or settings.grad_cache
    can = settings.zero_stage > 1 or (settings.zero_stage == 1 and (precision == "float16" or settings.offload_optimizer))
    return SHORT["float32"] if several and can else SHORT[precision]


def _settle(settings: TrainingSettings, own: Tree, *, precision: Precision | None, world: int | None) -> Tree:
    """`own` under our names and without "auto"; ConfigError where it contradicts the settings."""
    own = _renamed(_without_auto(own))
    problems = [f"{name}: {instead}" for name, instead in REFUSED.items() if own.get(name) is not None]
    for rule in _rules(settings, precision, world):
        place, name, wrong = _find(own, rule.key)
        if wrong is not None:
            problems.append(wrong)
        elif place is not None and place.get(name) is None:
            place.pop(name, None)
        elif place is not None and not _same(place[name], rule.value):
            change = rule.change(place[name])
            way = f"set {change}, or remove the key from the file" if change else "remove the key from the file"
            problems.append(f"{rule.key} is {_show(place[name])} there, but {rule.why}: {way}")
        elif place is not None and not rule.keep:
            del place[name]
    if problems:
        raise ConfigError(
            f"the file of training.deepspeed contradicts the settings in {len(problems)} place(s). "
            f"{'. '.join(dict.fromkeys(problems))}"
        )
    return own


def _rules(settings: TrainingSettings, precision: Precision | None, world: int | None) -> list[Fixed]:
    device = "cpu" if settings.offload_optimizer else "none"
    rules = [
        _of_setting("train_micro_batch_size_per_gpu", "batch_size", settings),
        _of_setting("gradient_accumulation_steps", "accumulation", settings),
        _of_setting("gradient_clipping", "gradient_clipping", settings),
        _of_setting("zero_optimization.stage", "zero_stage", settings),
        replace(_of_setting("zero_optimization.cpu_offload", "offload_optimizer", settings), keep=False),
        Fixed(
            "zero_optimization.offload_optimizer.device",
            device,
            f"training.offload_optimizer = {_show(settings.offload_optimizer)}",
            lambda found: f"training.offload_optimizer = {_show(found == 'cpu')}" if found in {"cpu", "none"} else None,
        ),
    ]
    relied_on = {
        "managed_gradient_accumulation": True,
        "gradient_allreduce_op": "mean",
        "checkpoint.load_universal": False,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    rules += [Fixed(key, value, f"the training loop relies on {_show(value)}") for key, value in relied_on.items()]
    if precision is not None:
        rules += _of_precision(settings.precision, precision)
    if world is not None:
        others = settings.accumulation * world
        product = settings.batch_size * others
        rules.append(
            Fixed(
                "train_batch_size",
                product,
                f"training.batch_size × training.accumulation × ranks = {product}",
                lambda found: (
                    f"training.batch_size = {found // others}"
                    if isinstance(found, int) and found > 0 and found % others == 0
                    else None
                ),
            )
        )
    return rules


def _of_setting(key: str, name: str, settings: TrainingSettings) -> Fixed:
    """A key that is one of our settings under another name."""
    value = getattr(settings, name)
    return Fixed(key, value, f"training.{name} = {_show(value)}", lambda found: f"training.{name} = {_show(found)}")


def _of_precision(asked: str, precision: Precision) -> list[Fixed]:
    chosen = f'training.precision = "{asked}"' + ("" if asked == precision else f", which is {precision} here")
    half: tuple[Precision, ...] = ("bfloat16", "float16")
    switches = [Fixed(f"{SHORT[name]}.enabled", precision == name, chosen, partial(_to_precision, name)) for name in half]
    return switches + [Fixed(key, False, chosen) for key in ("fp16.auto_cast", "torch_autocast.enabled", "amp.enabled")]


def _to_precision(name: str, found: Any) -> str:
    return f'training.precision = "{name if found else "float32"}"'


def _find(tree: Tree, key: str) -> tuple[Tree | None, str, str | None]:
    """(the section that holds `key`, its name there, what is wrong on the way); no section where the key is absent."""
    *sections, name = key.split(".")
    for depth, section in enumerate(sections, start=1):
        below = tree.get(section)
        if below is None:
            return None, name, None
        if not isinstance(below, dict):
            path = ".".join(sections[:depth])
            return None, name, f"{path} is {_show(below)} there, expected a section {{…}}: write it as one"
        tree = below
    return (tree if name in tree else None), name, None


def _renamed(own: Tree) -> Tree:
    for alias, key in ALIASES.items():
        place, name, _ = _find(own, alias)
        if place is not None:
            value = place.pop(name)
            place.setdefault(key.rsplit(".", 1)[-1], value)
    return own


def _without_auto(value: Tree) -> Tree:
    """A deep copy without the keys that are "auto", which leave the choice to whoever reads the file."""
    return {key: _without_auto(below) if isinstance(below, dict) else below for key, below in value.items() if below != "auto"}


def _merge(ours: Tree, own: Tree) -> Tree:
    merged = dict(ours)
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merge(below, value)
        elif value is not None or below is None:  # null says no more than "auto"
            merged[key] = value
    return merged


def _same(found: Any, ours: Any) -> bool:
    return isinstance(found, bool) == isinstance(ours, bool) and bool(found == ours)


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
