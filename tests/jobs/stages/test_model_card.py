"""The model that a run hands out: its card, whose code runs for every kind of encoder, as does the code that is printed."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import ModelCard
from rich.console import Console

from cluster.commits import Commit, digest
from cluster.storage.model_folders import fetch_folder, upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import F32, lists_to_csr
from jobs.config.config import parse_config
from jobs.finished.show import show_summary
from jobs.finished.status import read_status
from jobs.record.stages import ModelName
from jobs.record.summary import summary_of
from jobs.stages.finish.finish import export_model, merged_in_words, what_it_reads
from jobs.stages.finish.model_card import SplitFigures
from jobs.stages.stage_1_embed import Model
from tests.support.cards import card
from tests.support.model_kinds import BERT
from tests.support.reranking import SENTENCE, reranking_table
from tests.support.synthetic_run import write_run
from tests.support.tiny_models import TEXTS, Kind, encoder_folder, one_step, ours
from training.encoders.adapter import new_adapter_folder
from training.encoders.load import load_encoder
from training.encoders.lora import add_lora
from training.encoders.prepare.prepare import build_base, read_licence
from training.encoders.sequence import new_sequence_folder
from training.encoders.tokens.features import Tokens, Vectors
from training.encoders.tokens.tokenizer import Tokenizer
from training.settings import EncoderSettings, LoraSettings

pytestmark = pytest.mark.slow
QUERY, ITEM = "a query", "the text of an item"
"""Texts of the code."""
Trained = tuple[Path, Path | None, Callable[[dict[str, Any]], tuple[F32, F32]]]
"""(the trained folder, its frozen base model, from the code's variables to (vectors that it computed, vectors of ours))."""


def static(scratch: Path) -> Trained:
    settings = EncoderSettings(kind="static", dimension=32, vocabulary=256)
    build_base(settings, StorageSettings(), [*TEXTS, QUERY, ITEM], 0, scratch)
    return scratch, None, of_texts(scratch, settings)


def transformer(scratch: Path, *, lora: bool = False) -> Trained:
    _, base, settings = encoder_folder(Kind("", BERT, {"query_prompt": "find "}), scratch)
    encoder = load_encoder(base)
    if lora:
        add_lora(encoder, LoraSettings())
    offsets, values = lists_to_csr(pa.chunked_array([Tokenizer(base, settings)(TEXTS, "")]))
    one_step(encoder, Tokens(offsets, values.astype(np.int32)))
    trained = scratch / "trained"
    trained.mkdir()
    encoder.save(trained, {name: value.detach().clone() for name, value in encoder.state_dict().items()})
    return trained, None, of_texts(trained, settings)


def with_lora(scratch: Path) -> Trained:
    return transformer(scratch, lora=True)


def of_texts(folder: Path, settings: EncoderSettings) -> Callable[[dict[str, Any]], tuple[F32, F32]]:
    def compare(code: dict[str, Any]) -> tuple[F32, F32]:
        prompt = settings.query_prompt or ""
        sides = [
            ours(load_encoder(folder), folder, settings, [text], of, alone=True) for text, of in ((QUERY, prompt), (ITEM, ""))
        ]
        return np.concatenate([code["queries"], code["items"]]), np.concatenate(sides)

    return compare


def adapter_on_a_base_model(scratch: Path) -> Trained:
    _, base, settings = encoder_folder(Kind("", BERT), scratch)
    new_adapter_folder(scratch / "adapter", 32, 16, 0)

    def compare(code: dict[str, Any]) -> tuple[F32, F32]:
        vectors = ours(load_encoder(base), base, settings, [QUERY, ITEM], "", alone=True)
        return np.concatenate([code["queries"], code["items"]]), load_encoder(scratch / "adapter").encode(Vectors(vectors))

    return scratch / "adapter", base, compare


def adapter_on_given_vectors(scratch: Path) -> Trained:
    new_adapter_folder(scratch, 32, 16, 0)
    return scratch, None, lambda code: (code["embeddings"], load_encoder(scratch).encode(Vectors(code["vectors"].numpy())))


def sequence(scratch: Path) -> Trained:
    vectors = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    new_sequence_folder(scratch, vectors, ["a", "b", "c", "d"], hidden=8, max_length=3, seed=0)

    def compare(code: dict[str, Any]) -> tuple[F32, F32]:
        encoder: Any = load_encoder(scratch)
        return code["queries"], encoder.encode(encoder.read([["a", "b"]]))

    return scratch, None, compare


KINDS = (
    ("static", static),
    ("transformer", transformer),
    ("transformer", with_lora),
    ("adapter", adapter_on_a_base_model),
    ("adapter", adapter_on_given_vectors),
    ("sequence", sequence),
)


@pytest.mark.parametrize(("kind", "train"), KINDS, ids=[train.__name__ for _, train in KINDS])
def test_the_printed_code_and_the_card_s_code_give_the_model_s_vectors(
    kind: str, train: Callable[[Path], Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "scratch").mkdir()
    trained, frozen, compare = train(tmp_path / "scratch")
    store = Store(str(tmp_path / "run"))
    figures = {"prefix": "base"} if frozen else {}
    base = Commit("base", "k", {}, files=upload_folder(frozen, store, "base") if frozen else {}, figures=figures)
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": kind}}
    values["encoder"] |= {"model": "a/model"} if frozen or kind == "transformer" else {}
    config = parse_config(values, source="test", trains=False)
    model = Model("d", "trained", upload_folder(trained, store, "trained"), reads_base=frozen is not None)
    told = card(reads=what_it_reads(config, base if frozen or kind == "adapter" else Commit("", "", {}, figures={"prefix": ""})))
    files = export_model(store, "model", model, base, told)

    summary = summary_of(
        Commit(
            "finish",
            "k",
            {},
            figures={
                "prefix": "model",
                "summary": SUMMARY | {"model": "model"},
                "usage": {"reads": told.reads, "dimension": told.dimension},
            },
        ),
        store,
    )
    console = Console(file=io.StringIO(), width=80)
    show_summary(console, summary)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    lines = printed.partition("model:  ")[2].splitlines()[1:]
    code = "\n".join(line.removeprefix("        ") for line in lines if line.startswith("        "))
    assert str(tmp_path / "run/model") in code
    check(code, compare)

    folder = fetch_folder(store, files, "model")
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    check(blocks[0], compare)
    assert sorted(file.name for file in (tmp_path / "run/model").iterdir()) == sorted(file.name for file in folder.iterdir())


SUMMARY: dict[str, Any] = {
    "name": "shop",
    "baseline": {},
    "rounds": [],
    "random_arm": None,
    "best_round": 0,
    "reason": "",
    "test": None,
    "general_baseline": None,
}


def check(code: str, compare: Callable[[dict[str, Any]], tuple[F32, F32]]) -> None:
    variables: dict[str, Any] = {}
    exec(code, variables)
    got, want = compare(variables)
    assert got.shape == want.shape
    assert np.abs(np.linalg.norm(got, axis=1) - 1).max() < 1e-4
    assert (got * want).sum(axis=1).min() > 0.9999


def written(tmp_path: Path, **values: Any) -> str:
    return card(**values).write(tmp_path)


def test_the_card_says_what_the_hub_reads_and_what_a_person_asks(tmp_path: Path) -> None:
    text = written(tmp_path, hub_name="a/model")
    metadata = ModelCard(text).data.to_dict()
    assert (metadata["license"], metadata["base_model"], metadata["library_name"]) == (
        "apache-2.0",
        "a/model",
        "sentence-transformers",
    )
    result = metadata["model-index"][0]["results"][0]
    assert (result["dataset"]["split"], result["metrics"]) == ("dev", [{"type": "recall@3", "value": 0.5678, "name": "Recall@3"}])
    assert "| Recall@3 | 0.444 | 0.568 | +12.3 [+10.0, +15.0] |" in text
    assert "| text | `{text}` | `{title} \\| {text}` |" in text, "a bar would end the cell"
    assert "the model of round 2 in a hardmine run that started from `a-folder`" in text
    assert "Hit@1" not in text, "nothing compares it"
    assert "- data: `corpus:all corpus.parquet` = `c0ffee`" in text
    assert "beef" not in text, "it was not trained on the general set"
    assert "hardmine 1.2.3, run `shop`, settings `5e77`" in text
    assert "| round 1 | mined | 41 | – |" in text


def test_the_base_model_itself_is_not_called_fine_tuned(tmp_path: Path) -> None:
    figures = SplitFigures("dev", 10, {"hit@1": 0.5, "recall@3": 0.6}, {"hit@1": 0.5, "recall@3": 0.6}, {})
    text = written(tmp_path, label="off the shelf", rounds=[], figures=[figures])
    assert "It is `a-folder` (content c0ffee) without further training: no round" in text
    assert "started from" not in text
    assert "| Recall@3 | 0.600 | 0.600 | – |\n| Hit@1 | 0.500 | 0.500 | – |" in text


def test_the_card_of_a_merged_model_says_what_it_is_an_average_of(tmp_path: Path) -> None:
    said = card(label=merged_in_words(ModelName(125), 2)).write(tmp_path)
    assert "model of round 2, averaged with its start (25 % of its weights and 75 % of the weights that the run started" in said


def test_no_text_breaks_a_table_and_a_thousand_files_are_one_line(tmp_path: Path) -> None:
    many = {"corpus:all": {f"part-{number}.parquet": "c0ffee" for number in range(1000)}}
    text = written(tmp_path, query_text="Instruct: find | this\nQuery: {text}", data=many)
    assert "| text | `Instruct: find \\| this\\nQuery: {text}` | `{title} \\| {text}` |" in text
    assert [line for line in text.splitlines() if line.startswith("- data: ")] == [
        f"- data: `corpus:all, 1,000 files` = `{digest(many['corpus:all'])}`"
    ]


def test_an_unknown_licence_is_said_and_not_guessed(tmp_path: Path) -> None:
    text = written(tmp_path, licence={})
    assert ModelCard(text).data.to_dict()["license"] == "unknown"
    assert "unknown: fill in" in text


@pytest.mark.parametrize(
    ("card_text", "licence"),
    [
        ("---\nlicense: mit\ntags:\n- x\n---\n# A model\n", {"license": "mit"}),
        (
            "---\nlicense: other\nlicense_name: gemma\nlicense_link: https://x/y\n---\n",
            {"license": "other", "license_name": "gemma", "license_link": "https://x/y"},
        ),
        ("# no metadata\n", {}),
        ("---\nlicense: [\n---\n", {}),
        ("---\n- a list\n---\n", {}),
        (None, {}),
    ],
)
def test_the_base_model_s_licence_is_read_from_its_card(tmp_path: Path, card_text: str | None, licence: dict[str, str]) -> None:
    if card_text is not None:
        (tmp_path / "README.md").write_text(card_text)
    assert read_licence(tmp_path) == licence


def test_what_another_training_left_is_not_handed_out_and_licences_are(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        BERT(folder)
        for name in (
            "data_config.json",
            "train_script.py",
            "README.md",
            "trainer_state.json",
            "LICENSE",
            "eval/results.csv",
            "reranker/config.json",
        ):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("{}")

    _, base, _ = encoder_folder(Kind("", make), tmp_path)
    names = {path.relative_to(base).as_posix() for path in base.rglob("*")}
    assert "LICENSE" in names
    assert not names & {"data_config.json", "train_script.py", "README.md", "trainer_state.json", "eval", "reranker"}


def test_a_model_on_s3_is_opened_from_its_local_copy(tmp_path: Path) -> None:
    finish = read_status(write_run(tmp_path / "shop")).record.finish
    assert finish is not None
    assert 'SentenceTransformer("model")' in summary_of(finish, Store("s3://shop/runs"))["usage"]
    quoted = Store(str(tmp_path / 'a "shop"\\'))
    assert json.dumps(quoted.url("model"), ensure_ascii=False) in summary_of(finish, quoted)["usage"]


def test_the_card_of_a_model_on_vectors_says_that_it_reads_no_texts(tmp_path: Path) -> None:
    new_adapter_folder(tmp_path, 32, 8, seed=0)
    assert "`encode` reads texts, so it fails" in card(reads="vectors").write(tmp_path)
    assert "it fails" not in card().write(tmp_path)


def test_the_card_says_how_the_re_ranker_is_called_and_what_it_is_worth(tmp_path: Path) -> None:
    static(tmp_path)
    text = card(reranking=reranking_table()).write(tmp_path)
    section = text[text.index("## Re-ranker") :]
    assert SENTENCE in section
    assert 'CrossEncoder("reranker")' in section
    assert "| fine-tuned * | fine-tuned | 0.750 | 0.850 | 0.750 | 0.750 | 25.0% | +7.0 [+4.0, +10.0] | 0.002 | 3 |" in section
    assert "## Re-ranker" not in card().write(tmp_path)
