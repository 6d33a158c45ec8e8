"""Every kind of model that users have: those that work, and those that are refused with the words of the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.tiny_models import SMALL, Kind, changed, edited, pipeline, plain

BERT = plain("Bert", **SMALL, max_position_embeddings=48)
QWEN: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 512}
SEGMENTS = {"template": "[CLS]:1 $A:0 [SEP]:0", "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
ENDLESS: dict[str, Any] = {"template": "$A"}
"""A tokenizer that adds no token of its own."""


def dense(size: int) -> Any:
    """A Dense layer to 24 dimensions."""
    from sentence_transformers.sentence_transformer.modules import Dense

    return Dense(size, 24)


def normalize(size: int) -> Any:
    """Unit length."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    module = Normalize()
    module.get_embedding_dimension = lambda: size
    return module


def layer_norm(size: int) -> Any:
    """LayerNorm."""
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    return LayerNorm(size)


def half(make: Any, dtype: torch.dtype) -> Any:
    """The same with the weights of all its modules in half precision."""

    def convert(folder: Path) -> None:
        for path in folder.rglob("*.safetensors"):
            save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))

    return edited(make, convert)


def rewrite(name: str, change: Any) -> Any:
    """Put `change` of a JSON file in its place."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return edit


def weights(change: Any) -> Any:
    """Put `change` of the model's weights in their place."""

    def edit(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def cut_off(folder: Path) -> None:
    """A download that broke off."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(folder: Path) -> None:
    """A pickle that would run code."""
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2), "code": Path}, folder / "pytorch_model.bin")


def adapter_of_peft(folder: Path) -> None:
    """What peft saves."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "bert"}))
    save_file({"x": torch.zeros(2)}, folder / "adapter_model.safetensors")


def foreign_module(modules: Any) -> Any:
    """A first module of another package."""
    return [{**modules[0], "type": "custom_st.Transformer"}, *modules[1:]]


def outside(modules: Any) -> Any:
    """A module whose files lie outside of the model."""
    return [modules[0], {**modules[1], "path": "../../etc"}, *modules[2:]]


def fewer_words(state: Any) -> Any:
    """Weights of another vocabulary than config.json says."""
    return {name: value[:5] if "word_embeddings" in name else value for name, value in state.items()}


def all_nan(state: Any) -> Any:
    """Weights of a training that diverged."""
    return {name: value * torch.nan for name, value in state.items()}


def without(part: str) -> Any:
    """The weights without those whose name contains `part`."""
    return weights(lambda state: {name: value for name, value in state.items() if part not in name})


def rename_options(folder: Path) -> None:
    """The options of the first module under the name that RoBERTa's once had."""
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")


OPTIONS = "sentence_bert_config.json"
T5 = plain("T5", d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, tokenizer={"template": "$A [SEP]"})
CASED = plain("Bert", **SMALL, tokenizer={"lower": False})
LEFT = plain("Bert", **SMALL, tokenizer={"padding_side": "left"})
NO_PADDING = plain("Qwen2", **QWEN, tokenizer={"template": "$A [SEP]", "pad_token": None, "eos_token": "[SEP]"})
ST = pipeline(BERT, dense, normalize)
PROMPT = {"query": "find: the quick "}
POOLING = "1_Pooling/config.json"

KINDS = [
    Kind("BERT", BERT),
    Kind("BERT, cls pooling", pipeline(BERT, pooling="cls")),
    Kind("BERT, left padding, cls pooling", pipeline(LEFT, pooling="cls")),
    Kind("BERT, left padding, mean pooling", LEFT),
    Kind("DistilBERT", plain("DistilBert", dim=32, n_layers=2, n_heads=4, hidden_dim=48)),
    Kind("RoBERTa, 66 positions", plain("Roberta", **SMALL, max_position_embeddings=66)),
    Kind("MPNet, 66 positions", plain("MPNet", **SMALL, max_position_embeddings=66)),
    Kind("DeBERTa-v2", plain("DebertaV2", **SMALL, relative_attention=True, pos_att_type=["c2p", "p2c"])),
    Kind("ModernBERT", plain("ModernBert", **SMALL, max_position_embeddings=512, cls_token_id=2, sep_token_id=3)),
    Kind("T5 encoder", T5),
    Kind("Qwen2, last token", pipeline(plain("Qwen2", **QWEN, tokenizer=ENDLESS), normalize, pooling="lasttoken")),
    Kind(
        "Qwen2, last token, left padding",
        pipeline(plain("Qwen2", **QWEN, tokenizer={**ENDLESS, "padding_side": "left"}), normalize, pooling="lasttoken"),
    ),
    Kind("Qwen2, no padding token", pipeline(NO_PADDING, pooling="lasttoken")),
    Kind("GPT-2, mean pooling", plain("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=48, tokenizer=ENDLESS)),
    Kind("float16 file", half(BERT, torch.float16)),
    Kind("bfloat16 file", half(BERT, torch.bfloat16)),
    Kind("bfloat16 file, Dense layer", half(ST, torch.bfloat16)),
    Kind("Dense and Normalize", ST),
    Kind("LayerNorm and Dense", pipeline(BERT, layer_norm, dense)),
    Kind("cls, mean and max pooling at once", pipeline(BERT, pooling=("cls", "mean", "max"))),
    Kind("weighted mean pooling", pipeline(BERT, pooling="weightedmean")),
    Kind("prompt not pooled (INSTRUCTOR), mean", pipeline(BERT, normalize, include_prompt=False, prompts=PROMPT), side="query"),
    Kind("prompt not pooled (INSTRUCTOR), T5 and Dense", pipeline(T5, dense, include_prompt=False, prompts=PROMPT), side="query"),
    Kind("prompts by name", pipeline(BERT, normalize, prompts=PROMPT), side="query"),
    Kind("default prompt", pipeline(BERT, prompts={"all": "find: "}, default_prompt_name="all")),
    Kind("do_lower_case", changed(pipeline(CASED), OPTIONS, do_lower_case=True)),
    Kind("max_seq_length above the positions", changed(pipeline(BERT), OPTIONS, max_seq_length=512)),
    Kind("options under an older name", edited(pipeline(BERT), rename_options)),
    Kind("vectors cut by truncate_dim", pipeline(BERT, truncate_dim=8), refused="truncate_dim"),
    Kind("custom_st.Transformer", edited(ST, rewrite("modules.json", foreign_module)), refused="code of its own"),
    Kind("auto_map", changed(BERT, "config.json", auto_map={"AutoModel": "modeling.MyModel"}), refused="code of its own"),
    Kind("module outside the folder", edited(ST, rewrite("modules.json", outside)), refused="leads out of it"),
    Kind("modules.json is no list", edited(ST, rewrite("modules.json", lambda modules: {})), refused="expected a list"),
    Kind("module folder missing", edited(ST, lambda folder: shutil.rmtree(folder / "1_Pooling")), refused="is missing"),
    Kind("adapter of peft", edited(BERT, adapter_of_peft), refused="adapter of peft"),
    Kind("tokenizer missing", edited(BERT, lambda folder: (folder / "tokenizer.json").unlink()), refused="expected a tokenizer"),
    Kind("segments within a text", plain("Bert", **SMALL, tokenizer=SEGMENTS), refused="segments"),
    Kind("chat messages", changed(ST, OPTIONS, modality_config={"message": {}}), refused="modality_config"),
    Kind("pickle with code", edited(BERT, pickled), refused="safetensors"),
    Kind("weights cut off", edited(BERT, cut_off), refused="cannot be read"),
    Kind("weights of another shape", edited(BERT, weights(fewer_words)), refused="expected weights of the shapes"),
    Kind("weights missing", edited(BERT, without(".1.attention")), refused="lack"),
    Kind("weights with NaN", edited(BERT, weights(all_nan)), refused="NaN"),
    Kind("max_length above the positions", BERT, {"max_length": 64}, refused="max_length = 64"),
    Kind(
        "prompt not pooled, weighted mean",
        changed(pipeline(BERT, pooling="weightedmean"), POOLING, include_prompt=False),
        refused="include_prompt",
    ),
]
