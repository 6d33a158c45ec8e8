"""The DeepSpeed configuration: our settings, the user's own keys, and what is said where the two contradict each other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from jobs.config.config import load_config
from training.engine.deepspeed_config import check_deepspeed, deepspeed_config, read_deepspeed
from training.settings import TrainingSettings

SETTINGS = TrainingSettings(batch_size=16, accumulation=2, gradient_clipping=0.5, zero_stage=2)
OPEN = st.dictionaries(st.text("abcxyz", min_size=1), st.integers() | st.text() | st.booleans(), max_size=4)


def config_of(
    settings: TrainingSettings = SETTINGS, *, precision: Any = "float32", world: int = 2, own: dict[str, Any] | None = None
) -> dict[str, Any]:
    return deepspeed_config(settings, precision=precision, world=world, on_gpu=False, own=own)


def refusal(own: dict[str, Any], settings: TrainingSettings = SETTINGS, precision: Any = "float32") -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(settings, precision=precision, own=own)
    return str(caught.value)


def test_what_the_settings_say_is_written_out() -> None:
    config = config_of()
    assert config["train_micro_batch_size_per_gpu"] == 16
    assert config["gradient_accumulation_steps"] == 2
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == 2
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "none"
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (False, False)


@pytest.mark.parametrize(("precision", "short"), [("float32", "fp32"), ("bfloat16", "bf16"), ("float16", "fp16")])
def test_each_precision_turns_on_its_own_block_only(precision: str, short: str) -> None:
    config = config_of(precision=precision)
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (short == "bf16", short == "fp16")
    assert config["communication_data_type"] == short


def test_float16_scales_the_loss_as_it_goes() -> None:
    scaling = config_of(precision="float16")["fp16"]
    assert scaling["loss_scale"] == 0
    assert {"initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale"} < scaling.keys()


@pytest.mark.parametrize(
    ("stage", "precision", "changes", "want"),
    [
        (2, "bfloat16", {"accumulation": 4}, "fp32"),
        (3, "float16", {"grad_cache": True}, "fp32"),
        (2, "bfloat16", {}, "bf16"),  # a single backward pass adds nothing up
        (1, "bfloat16", {"accumulation": 4}, "bf16"),  # float32 would be another optimizer of DeepSpeed's
        (1, "bfloat16", {"accumulation": 4, "offload_optimizer": True}, "fp32"),
        (0, "bfloat16", {"accumulation": 4}, "bf16"),  # DeepSpeed refuses float32 there
    ],
)
def test_several_backward_passes_add_up_in_float32_where_deepspeed_can(
    stage: int, precision: str, changes: dict[str, Any], want: str
) -> None:
    config = config_of(TrainingSettings(zero_stage=stage, **changes), precision=precision)
    assert config["data_types"]["grad_accum_dtype"] == want


def test_float16_without_zero_is_refused_because_deepspeed_would_not_scale_the_loss() -> None:
    with pytest.raises(ConfigError, match=r"float16.* needs training\.zero_stage = 1, 2 or 3, found 0"):
        check_deepspeed(TrainingSettings(precision="float16", zero_stage=0), None)
    with pytest.raises(ConfigError, match=r"training\.zero_stage = 1, 2 or 3"):
        config_of(TrainingSettings(zero_stage=0), precision="float16")


def test_the_user_decides_what_the_settings_leave_open() -> None:
    own = {
        "zero_optimization": {"reduce_bucket_size": 7, "offload_param": {"device": "cpu"}},
        "fp16": {"loss_scale": 128},
        "activation_checkpointing": {"partition_activations": True},
        "communication_data_type": "fp16",
    }
    config = config_of(precision="float16", own=own)
    assert config["zero_optimization"]["reduce_bucket_size"] == 7
    assert config["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert config["zero_optimization"]["stage"] == 2, "the rest of the block stays"
    assert config["fp16"] == config_of(precision="float16")["fp16"] | {"loss_scale": 128}
    assert config["activation_checkpointing"] == {"partition_activations": True}


def test_what_agrees_is_accepted_and_changes_nothing() -> None:
    own = {
        "train_micro_batch_size_per_gpu": 16,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2, "cpu_offload": False, "offload_optimizer": {"device": "none"}},
    }
    assert config_of(precision="bfloat16", own=own) == config_of(precision="bfloat16")
    assert config_of(own={"train_batch_size": 16 * 2 * 2}) == config_of() | {"train_batch_size": 64}


def test_auto_and_null_leave_the_choice_to_the_settings() -> None:
    own = {
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "optimizer": "auto",
        "scheduler": None,
        "bf16": {"enabled": "auto"},
        "gradient_accumulation_steps": None,
        "zero_optimization": {"stage": "auto", "stage3_prefetch_bucket_size": "auto", "offload_optimizer": None},
    }
    offloaded = SETTINGS.model_copy(update={"offload_optimizer": True})
    merged = config_of(offloaded, own=own)
    assert merged.pop("scheduler") is None
    assert merged == config_of(offloaded)


@given(OPEN)
def test_keys_that_nobody_else_sets_arrive_as_they_are(values: dict[str, Any]) -> None:
    own = {"a-block-of-its-own": values}
    kept = {key: value for key, value in values.items() if value != "auto"}
    assert config_of(own=own) == config_of() | {"a-block-of-its-own": kept}


@pytest.mark.parametrize(
    ("own", "key", "ours", "change"),
    [
        (
            {"train_micro_batch_size_per_gpu": 64},
            "train_micro_batch_size_per_gpu is 64",
            "training.batch_size = 16",
            "training.batch_size = 64",
        ),
        ({"train_batch_size": 256}, "train_batch_size is 256", "ranks = 64", "training.batch_size = 64"),
        (
            {"gradient_accumulation_steps": 8},
            "gradient_accumulation_steps is 8",
            "training.accumulation = 2",
            "training.accumulation = 8",
        ),
        (
            {"gradient_clipping": 1},
            "gradient_clipping is 1",
            "training.gradient_clipping = 0.5",
            "training.gradient_clipping = 1",
        ),
        (
            {"bfloat16": {"enabled": True}},
            "bf16.enabled is true",
            'training.precision = "auto", which is float32 here',
            'training.precision = "bfloat16"',
        ),
        ({"fp16": {"enabled": True}}, "fp16.enabled is true", "which is float32 here", 'training.precision = "float16"'),
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage is 3",
            "training.zero_stage = 2",
            "training.zero_stage = 3",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            'offload_optimizer.device is "cpu"',
            "training.offload_optimizer = false",
            "training.offload_optimizer = true",
        ),
        (
            {"zero_optimization": {"cpu_offload": True}},
            "cpu_offload is true",
            "training.offload_optimizer = false",
            "training.offload_optimizer = true",
        ),
    ],
)
def test_a_contradiction_names_the_key_both_values_and_what_to_change(
    own: dict[str, Any], key: str, ours: str, change: str
) -> None:
    message = refusal(own)
    assert "in 1 place(s)" in message
    for part in (key, ours, f"set {change}, or remove the key from the file"):
        assert part in message, part


def test_precision_chosen_otherwise_is_named_as_it_was_set() -> None:
    chosen = SETTINGS.model_copy(update={"precision": "bfloat16"})
    message = refusal({"bf16": {"enabled": False}}, chosen, "bfloat16")
    assert 'training.precision = "bfloat16": set training.precision = "float32"' in message


def test_all_contradictions_come_in_one_error() -> None:
    message = refusal(
        {
            "gradient_clipping": 3,
            "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
            "scheduler": {"type": "WarmupLR"},
            "zero_optimization": {"stage": 0},
        }
    )
    assert "in 4 place(s)" in message
    for part in (
        "gradient_clipping",
        "zero_optimization.stage",
        "training.learning_rate and training.weight_decay",
        "training.warmup_fraction",
    ):
        assert part in message, part
    assert "\n" not in message


@pytest.mark.parametrize(
    "own",
    [
        {"managed_gradient_accumulation": False},
        {"gradient_allreduce_op": "sum"},
        {"zero_allow_untested_optimizer": False},
        {"checkpoint": {"load_universal": True}},
        {"elasticity": {"enabled": True}},
        {"tensor_parallel": {"autotp_size": 2}},
    ],
)
def test_what_the_loop_could_not_work_with_is_refused(own: dict[str, Any]) -> None:
    assert next(iter(own)) in refusal(own)


@pytest.mark.parametrize("own", [{"fp16": True}, {"zero_optimization": 2}, {"zero_optimization": {"offload_optimizer": "cpu"}}])
def test_a_value_in_place_of_a_section_is_named(own: dict[str, Any]) -> None:
    assert "expected a section" in refusal(own)


def test_a_second_name_does_not_stand_beside_ours() -> None:
    zero = config_of(own={"zero_optimization": {"param_persistence_threshold": 5}})["zero_optimization"]
    assert zero["stage3_param_persistence_threshold"] == 5
    assert "param_persistence_threshold" not in zero


def test_the_users_dictionary_is_left_as_it_was() -> None:
    own = {"bfloat16": {"enabled": False}, "zero_optimization": {"cpu_offload": False, "stage": "auto"}}
    before = json.dumps(own)
    config_of(own=own)
    assert json.dumps(own) == before


def test_before_the_machine_is_known_only_what_depends_on_it_is_left_open() -> None:
    check_deepspeed(SETTINGS, {"train_batch_size": 4096, "bf16": {"enabled": True}})
    with pytest.raises(ConfigError, match=r"training\.zero_stage"):
        check_deepspeed(SETTINGS, {"zero_optimization": {"stage": 1}})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no file"),
        ('{"a": 1,}', "is not valid JSON"),
        ("[1]", r"expected a JSON object \{…\} in .*\[1\]"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_json_object_is_a_config_error(tmp_path: Path, content: str | bytes | None, complaint: str) -> None:
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=complaint):
        read_deepspeed(str(path))


def test_an_address_is_not_a_local_file() -> None:
    with pytest.raises(ConfigError, match="expected a local JSON file"):
        read_deepspeed("s3://bucket/ds.json")


def write_config(folder: Path, deepspeed: str) -> Path:
    path = folder / "run.toml"
    path.write_text(
        f'name = "a"\noutput = "out"\n[data]\nfolder = "beir"\n[encoder]\nkind = "static"\n'
        f'[training]\ndeepspeed = "{deepspeed}"\n'
    )
    return path


def test_the_file_is_found_beside_the_config_and_read_when_that_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 1}}')
    path = write_config(tmp_path, "ds.json")
    assert load_config(path).training.deepspeed == str(tmp_path / "ds.json")
    with pytest.raises(ConfigError, match=r"zero_optimization\.stage is 1 there, but training\.zero_stage = 3"):
        load_config(path, ["training.zero_stage=3"])
    with pytest.raises(ConfigError, match=r"there is no file .*other\.json"):
        load_config(path, ["training.deepspeed=other.json"])
    (tmp_path / "ds.json").write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        load_config(path)
    assert load_config(path, trains=False).training.deepspeed == str(tmp_path / "ds.json"), "nothing is trained with it"


def test_checking_a_configuration_loads_neither_torch_nor_deepspeed() -> None:
    code = (
        "import sys, jobs.config.config, training.engine.deepspeed_config as d; "
        "from training.settings import TrainingSettings as T; "
        "d.check_deepspeed(T(), {}); print({'torch', 'deepspeed', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "set()"
