"""Pairs: their tokens are those of the tokenizer, whichever family it is of and wherever a pair is cut."""

from __future__ import annotations

import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cluster.errors import ConfigError
from training.encoders.st_format import write_json
from training.encoders.tokens.pairs import PairTokenizer, cut_lengths

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "bert": ("<s> $A </s> $B:1 </s>:1", True),
    "roberta": ("<s> $A </s> </s> $B </s>", False),
    "decoder": ("$A $B", False),
    "swapped": ("<s> $B </s> $A </s>", False),
    "typed": ("<s>:2 $A </s> $B:1 </s>:1", True),
}


def make_folder(folder: Path, template: str) -> Path:
    """A tokenizer of letters that joins pairs as `template` says."""
    words = {word: number for number, word in enumerate([*SPECIAL.values(), *string.ascii_letters])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    pair, typed = TEMPLATES[template]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])]
    )
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=names, **SPECIAL)
    fast.save_pretrained(folder)
    write_json(folder / "config.json", {"model_type": "bert", "max_position_embeddings": 64})
    return folder


@pytest.mark.parametrize("template", ["bert", "roberta", "decoder"])
@pytest.mark.parametrize("length", [8, 9, 30, None])
def test_joined_texts_have_the_tokens_of_the_tokenizer_s_own_pair(template: str, length: int | None, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, template)
    ours = PairTokenizer(folder, length)
    rng = np.random.default_rng(1)
    texts = ["", *("".join(rng.choice(list(string.ascii_lowercase), size)) for size in rng.integers(1, 80, 30))]
    queries, items = rng.integers(0, len(texts), (2, 200))
    tokens = ours(texts)
    got = ours.template.join(tokens, tokens, queries, items)
    theirs: Any = PreTrainedTokenizerFast.from_pretrained(folder)(
        [texts[row] for row in queries], [texts[row] for row in items], truncation="longest_first", max_length=length or 64
    )
    for pair, (ids, mask) in enumerate(zip(theirs["input_ids"], theirs["attention_mask"], strict=True)):
        own = got.values[got.offsets[pair] : got.offsets[pair + 1]]
        assert np.where(own < 0, ~own, own).tolist() == ids
        assert len(mask) == len(ids)
        if template == "bert":
            assert (own < 0).tolist() == [kind == 1 for kind in theirs["token_type_ids"][pair]]


@pytest.mark.parametrize("template", ["swapped", "typed"])
def test_a_tokenizer_that_joins_otherwise_is_refused(template: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not put the tokens of a pair one text after the other"):
        PairTokenizer(make_folder(tmp_path, template))


def test_lower_case_and_a_sub_folder_are_the_folder_s(cross_encoder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(cross_encoder, tmp_path / "0_Transformer"))
    write_json(root / "sentence_bert_config.json", {"do_lower_case": True, "max_seq_length": 12})
    write_json(tmp_path / "modules.json", [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "x.Transformer"}])
    tokenizer = PairTokenizer(tmp_path)
    assert tokenizer.template.max_length == 12
    assert tokenizer(["ABC"]).tokens.values.tolist() == tokenizer(["abc"]).tokens.values.tolist()


def test_the_longer_text_is_cut_first() -> None:
    first, second = cut_lengths(np.array([3, 9, 2, 20, 0]), np.array([9, 3, 3, 20, 30]), 7)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(3, 4), (4, 3), (2, 3), (3, 4), (0, 7)]
