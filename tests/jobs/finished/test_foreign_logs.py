"""Logs of other trainers: what they hold is found under its usual names, and no more is said than it can show."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.errors import DataError
from eval.diagnosis.experiments import (
    fewer_false_negatives,
    harder_negatives,
    more_capacity,
    slower,
    stop_earlier,
    usual_temperature,
)
from eval.diagnosis.rank import diagnose
from jobs.finished.foreign_logs import headline, read_log

STEPS = range(10, 410, 10)


def csv_log(losses: list[float], recalls: list[float], name: str = "recall") -> bytes:
    every = len(losses) // max(1, len(recalls))
    rows = [
        f"{step},{loss},{recalls[n // every] if recalls and n % every == every - 1 else ''}"
        for n, (step, loss) in enumerate(zip(STEPS, losses, strict=True))
    ]
    return "\n".join([f"step,loss,{name}", *rows]).encode()


def names(name: str, content: bytes) -> list[str]:
    return [finding.name for finding in diagnose(read_log(name, content).evidence)]


FALLING, STILL = list(np.linspace(3.0, 0.5, 40)), [2.0 + 0.01 * (n % 3) for n in range(40)]


@pytest.mark.parametrize(
    ("losses", "recalls", "expected"),
    [
        (FALLING, [0.3, 0.4, 0.45, 0.5, 0.55], ["healthy"]),
        (FALLING, [0.3, 0.5, 0.45, 0.4, 0.35], ["overfitting"]),
        (FALLING, [0.3, 0.5, 0.5, 0.505, 0.5], ["plateau"]),
        (STILL, [0.3, 0.3, 0.3, 0.3, 0.3], ["plateau"]),
        (list(np.linspace(1.0, 3.0, 40)), [0.3, 0.3, 0.25, 0.2, 0.1], ["diverged"]),
        ([*FALLING[:30], *[float("nan")] * 10], [0.3, 0.4, 0.45, 0.5, 0.5], ["diverged"]),
        (FALLING, [], ["no_validation"]),
        (FALLING, [0.3, 0.4], ["not_enough_evidence"]),
    ],
)
def test_a_loss_and_a_recall_show_this_much(losses: list[float], recalls: list[float], expected: list[str]) -> None:
    assert names("log.csv", csv_log(losses, recalls)) == expected


def test_spikes_are_counted() -> None:
    losses = list(FALLING)
    for place in (12, 20, 28):
        losses[place] *= 6
    assert names("log.csv", csv_log(losses, [0.3, 0.4, 0.45, 0.5, 0.55])) == ["loss_spikes"]
    losses[28] /= 6
    assert names("log.csv", csv_log(losses, [0.3, 0.4, 0.45, 0.5, 0.55])) == ["healthy"]


def test_a_plateau_says_what_a_loss_cannot_tell_apart() -> None:
    falling, still = (
        diagnose(read_log("log.csv", csv_log(losses, [0.3, 0.5, 0.5, 0.5])).evidence)[0].summary for losses in (FALLING, STILL)
    )
    assert "too easy, or the training pairs are learned by heart" in falling
    assert "too small a model" in still


def test_the_hugging_face_trainers_state() -> None:
    history: list[dict[str, float]] = []
    for step, loss in zip(STEPS, FALLING, strict=True):
        history.append({"epoch": step / 100, "step": step, "loss": loss, "grad_norm": 1.0, "learning_rate": 1e-5})
        if step % 100 == 0:
            history.append(
                {
                    "epoch": step / 100,
                    "step": step,
                    "eval_loss": 1.0,
                    "eval_dev_cosine_ndcg@10": 0.4 + step / 4000,
                    "eval_dev_cosine_recall@10": 0.5 + step / 4000,
                }
            )
    history.append({"epoch": 4.0, "step": 400, "train_loss": 1.2, "train_runtime": 9.0})
    log = read_log("trainer_state.json", json.dumps({"global_step": 400, "log_history": history}).encode())
    training = log.evidence.arms[0].trainings[0]
    assert (log.loss, log.metric) == ("loss", "eval_dev_cosine_recall@10")
    assert training.validation_steps.tolist() == [100, 200, 300, 400]
    assert training.steps["gradient_norm"].tolist() == [1.0] * 40
    assert training.steps["loss"][-1] == FALLING[-1]
    assert names("trainer_state.json", json.dumps({"log_history": history}).encode()) == ["healthy"]


def test_what_the_trainer_prints_among_other_lines() -> None:
    lines = [
        "Loading weights: 100%",
        *(str({"loss": f"{loss:.4g}", "grad_norm": "16.57", "epoch": f"{n / 10:.4g}"}) for n, loss in enumerate(FALLING, 1)),
        *(str({"eval_recall@10": f"{value}", "epoch": f"{epoch}"}) for epoch, value in ((1, 0.3), (2, 0.5), (3, 0.4), (4, 0.3))),
    ]
    log = read_log("train.log", "\n".join(lines).encode())
    assert log.evidence.arms[0].trainings[0].validation_steps.tolist() == [1, 2, 3, 4]
    assert names("train.log", "\n".join(lines).encode()) == ["overfitting"]


def test_an_evaluators_csv_of_sentence_transformers() -> None:
    head = "epoch,steps,cosine-Accuracy@1,cosine-Accuracy@10,cosine-Recall@1,cosine-Recall@10,cosine-MRR@10,cosine-NDCG@10"
    rows = [f"{epoch},-1,0.2,0.6,0.2,{recall},0.3,0.4" for epoch, recall in enumerate([0.4, 0.6, 0.5, 0.45])]
    content = "\n".join([head, *rows]).encode()
    log = read_log("Information-Retrieval_evaluation_results.csv", content)
    assert (log.loss, log.metric) == (None, "cosine-recall@10")
    assert log.evidence.arms[0].trainings[0].validation_steps.tolist() == [0, 1, 2, 3]
    [found] = diagnose(log.evidence)
    assert found.name == "overfitting"
    assert "without a training loss" in found.summary
    steps_anew = "\n".join([head, *(f"{n // 2},{500 + 500 * (n % 2)},0.2,0.6,0.2,0.4,0.3,0.4" for n in range(6))]).encode()
    assert (read_log("a.csv", steps_anew).runs, read_log("a.csv", steps_anew).lines) == (1, 6)


def test_an_export_of_weights_and_biases() -> None:
    head = '"Step","my-run - train/loss","my-run - train/loss__MIN","my-run - train/loss__MAX","my-run - eval/recall@10"'
    rows = [
        f'"{step}","{loss}","{loss}","{loss}","{0.3 + step / 1000 if step % 100 == 0 else ""}"'
        for step, loss in zip(STEPS, FALLING, strict=True)
    ]
    log = read_log("wandb_export.csv", "\n".join([head, *rows]).encode())
    assert (log.loss, log.metric) == ("loss", "recall@10")
    assert len(log.evidence.arms[0].trainings[0].validation_recall) == 4


def test_an_export_of_tensorboard_says_in_its_name_what_it_holds() -> None:
    rows = [f"1,{step},{loss}" for step, loss in zip(STEPS, FALLING, strict=True)]
    content = "\n".join(["Wall time,Step,Value", *rows]).encode()
    assert names("run-tag-train_loss.csv", content) == ["no_validation"]
    assert read_log("run-tag-eval_recall.csv", content).metric == "recall"
    with pytest.raises(DataError, match="rename the file"):
        read_log("run-1.csv", content)


def test_lines_of_json_with_a_half_one_at_the_end_and_our_own_telemetry() -> None:
    lines = [
        json.dumps({"step": step, "loss": loss, "positive_probability": 0.99, "negatives_per_query": 100})
        for step, loss in zip(STEPS, FALLING, strict=True)
    ]
    lines += [json.dumps({"event": "validation", "step": step, "recall": 0.4}) for step in (100, 200, 300, 400)]
    content = "\n".join([*lines, '{"step": 41']).encode()
    # with the gradient's figures the log says more than "plateau"
    assert names("telemetry.jsonl", content) == ["negatives_too_easy"]


def test_of_several_trainings_in_one_file_the_last_is_read() -> None:
    first, second = csv_log(STILL, [0.3, 0.3, 0.3, 0.3]), csv_log(FALLING, [0.3, 0.4, 0.5, 0.6])
    log = read_log("a.csv", first + b"\n" + b"\n".join(second.splitlines()[1:]))
    assert (log.runs, log.lines) == (2, 40)
    assert [finding.name for finding in diagnose(log.evidence)] == ["healthy"]
    resumed = b"\n".join(second.splitlines()[:20] + second.splitlines()[15:])
    assert read_log("a.csv", resumed).runs == 1


def test_per_cent_and_a_validation_loss_become_shares() -> None:
    def held_out(values: list[float], name: str) -> list[float]:
        log = read_log("a.csv", csv_log(FALLING, values, name))
        return [float(value) for value in log.evidence.arms[0].trainings[0].validation_recall]

    assert held_out([30, 40, 50, 60], "recall") == [0.3, 0.4, 0.5, 0.6]
    assert held_out([1.0, 0.5], "eval_loss") == pytest.approx([np.exp(-1), np.exp(-0.5)])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", ["no rows", "step"]),
        ("a.csv", b"colour,size\nred,3\n", ["colour, size", "rename the columns"]),
        ("a.json", b"{broken", ["begins like JSON but is not"]),
        ("a.json", b"[1, 2]", ["without a list of objects"]),
        ("a.csv", b"\xff\xfe\x00\x80", ["not UTF-8 text", "export"]),
        ("a.parquet.csv", b"PAR1\x00\x00", ["step"]),
    ],
)
def test_an_unreadable_log_gets_one_clear_paragraph(name: str, content: bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read_log(name, content)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [name, "expected", "found", *words])


def trainer_state(best: int, *, until: int = 3000, every: int = 250) -> bytes:
    """Three epochs of 1,000 steps: the loss falls all the way, the held-out figure from `best` on, too."""
    history: list[dict[str, float]] = []
    for step in range(50, until + 1, 50):
        history.append({"epoch": step / 1000, "step": step, "loss": 3 * float(np.exp(-step / 800)), "learning_rate": 2e-5})
        if step % every == 0:
            figure = 0.6 + 0.1 * min(step, best) / best - 0.1 * max(0, step - best) / (3000 - best)
            history.append({"epoch": step / 1000, "step": step, "eval_recall@10": figure})
    return json.dumps({"log_history": history}).encode()


@pytest.mark.parametrize(("best", "epoch"), [(250, "0.25"), (750, "0.75"), (1750, "1.75")])
def test_over_fitting_says_where_to_stop_in_the_logs_own_steps_and_epochs(best: int, epoch: str) -> None:
    [found] = diagnose(read_log("trainer_state.json", trainer_state(best)).evidence)
    assert found.name == "overfitting"
    assert found.next.startswith(f"stop at step {best:,}, epoch {epoch} (the last validation is at step 3,000, epoch 3), ")


def test_a_place_in_a_log_has_the_words_that_the_log_has() -> None:
    def places(*rows: str) -> list[str]:
        return [*read_log("log.csv", "\n".join(rows).encode()).evidence.arms[0].trainings[0].validation_places]

    assert places("step,recall", "100,0.5", "1200,0.6") == ["step 100", "step 1,200"]
    assert places("epoch,steps,recall", "0,-1,0.5", "1,-1,0.6") == ["epoch 0", "epoch 1"]
    assert places("loss,recall", "2,0.5", "1,0.6") == ["line 1", "line 2"]


def with_gradient(probability: float, hardest: float = 0.1, recall: float = 0.6, **more: float) -> bytes:
    names = ("positive_probability", "hardest_weight", "effective_negatives", "negatives_per_query", *more)
    values = (probability, hardest, 20.0, 63.0, *more.values())
    lines = [
        f"{step},{3 * np.exp(-n / 12):.4f},{recall},{','.join(map(str, values))}" for n, step in enumerate(range(100, 4100, 100))
    ]
    return "\n".join([f"step,loss,recall@10,{','.join(names)}", *lines]).encode()


def test_negatives_that_are_too_easy_are_mined_with_the_trainers_own_checkpoint() -> None:
    log = read_log("log.csv", with_gradient(0.97), checkpoint="my output/checkpoint-500")
    [found] = diagnose(log.evidence)
    assert found.name == "negatives_too_easy"
    assert found.next == (
        "mine new negatives with your checkpoint: hardmine init DATA encoder.kind=transformer "
        "encoder.model='my output/checkpoint-500' && hardmine mine hardmine.toml --export negatives --num 5"
    )


def test_what_a_log_cannot_show_is_said_of_the_columns_that_it_lacks() -> None:
    assert "They do not show why" not in " ".join(headline(read_log("log.csv", with_gradient(0.97))))
    lacking = with_gradient(0.97).replace(b"hardest_weight", b"something").replace(b"negatives_per_query", b"other")
    assert "for that, log hardest_weight, negatives_per_query as well" in " ".join(headline(read_log("log.csv", lacking)))
    healthy = diagnose(read_log("log.csv", with_gradient(0.5, recall=0.97)).evidence)[0]
    assert healthy.name == "healthy"
    assert "could show" not in healthy.summary
    assert healthy.next == "nothing: go on"


def test_no_advice_for_another_trainer_names_a_setting_of_ours() -> None:
    evidence = read_log("log.csv", with_gradient(0.97)).evidence
    training = evidence.arms[0].trainings[0]
    advice = [
        harder_negatives(evidence, "log"),
        fewer_false_negatives(evidence, starved=False),
        fewer_false_negatives(evidence, starved=True),
        usual_temperature(evidence),
        slower(evidence, "slower", 1e-4, 10),
        slower(evidence, "slower", float("nan"), 10),
        stop_earlier(training, 0, float("nan")),
        more_capacity(evidence),
    ]
    for text in advice:
        assert "under another name" not in text
        assert "training." not in text
        assert "hardmine run" not in text
        assert ("encoder." in text) == ("hardmine init" in text)
    assert advice[3:6] == ["train with a temperature of 0.05", "train with a learning rate of 1e-05", "lower the learning rate"]


def test_a_validation_loss_is_called_what_it_is_and_a_log_is_no_arm() -> None:
    without_a_loss = b"step,recall@10\n" + b"\n".join(f"{step},0.5".encode() for step in STEPS)
    for content in (csv_log(FALLING, [2.0, 1.0, 1.0, 1.0], "eval_loss"), without_a_loss):
        [found] = diagnose(read_log("log.csv", content).evidence)
        said = json.dumps(found.as_json())
        assert found.name == "plateau"
        assert "log arm" not in said
        assert "validation recall" not in said
        assert " ;" not in said
    [spread] = diagnose(read_log("log.csv", csv_log(FALLING, [1.2, 0.7, 1.0, 1.2, 1.5], "eval_loss")).evidence)
    assert any("exp(-eval_loss) below its best" in figure.text for figure in spread.evidence)
