"""`hardmine sweep`: which trials it makes, which one it chooses and when it does not, and the command on Ray Tune."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError, TrainingDiverged
from cluster.session.progress import Progress
from cluster.session.resources import PoolSize
from jobs.config.config import Config, load_config, parse_config
from jobs.demo.catalogue import generate_catalogue
from jobs.run.driver import open_context
from jobs.trials.sweep import check_out, make_job
from jobs.trials.sweep_plan import Trial, TrialRecord, best_toml, choose_trial, plan_trials, sweep_json, trial_id, trial_settings


def config(**sections: Any) -> Config:
    values = {"name": "shop", "output": "/runs", "data": {"folder": "/beir"}, "encoder": {"kind": "static"}} | sections
    return parse_config(values, source="test")


def finished(per_query: list[float], **more: Any) -> TrialRecord:
    recall = sum(per_query) / len(per_query)
    return TrialRecord("finished", [recall / 2, recall], recall, per_query, **more)


def test_a_triplet_loss_is_not_repeated_for_every_temperature() -> None:
    trials = plan_trials(config())
    # the configuration as it is (τ 0.05, random_fraction 0.25) is one of the nine
    assert trials[0] == Trial("info_nce", 0.05, 0.25)
    assert len(trials) == len(set(trials)) == 3 * 3 + 3
    assert [trial.random_fraction for trial in trials if trial.loss == "triplet"] == [0.0, 0.25, 1.0]
    assert {trial.scale for trial in trials if trial.loss == "triplet"} == {0.2}


def test_the_configuration_as_it_is_is_a_trial_even_outside_the_lists() -> None:
    trials = plan_trials(config(training={"temperature": 0.033}, sweep={"loss": ["triplet"]}))
    assert trials[0] == Trial("info_nce", 0.033, 0.25)
    assert len(trials) == 1 + 3
    first = plan_trials(config(training={"loss": "triplet", "margin": 0.4}, sweep={"loss": ["info_nce"]}))[0]
    assert first == Trial("triplet", 0.4, 0.25)


def test_shares_that_come_to_as_many_random_negatives_are_one_trial() -> None:
    trials = plan_trials(config(training={"hard_negatives": 1}, sweep={"temperature": [0.05], "loss": ["info_nce"]}))
    assert trials == [Trial("info_nce", 0.05, 0.25), Trial("info_nce", 0.05, 1.0)], "a quarter of one is none"


@pytest.mark.parametrize(
    "lists",
    [
        {"temperature": [0.05], "loss": ["info_nce"], "random_fraction": [0.25]},
        {"temperature": [0.05], "loss": ["info_nce"], "random_fraction": [0.25, 0.3]},  # both are 2 of 7
    ],
)
def test_a_sweep_of_one_combination_is_refused(lists: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no combination other than.*τ 0\.05, random_fraction 0\.25: 2 random negatives"):
        plan_trials(config(sweep=lists))


def test_trials_differ_in_what_they_try_and_in_nothing_else() -> None:
    given = config(training={"epochs": 1, "learning_rate": 0.01, "trackers": ["tensorboard"]}, sweep={"epochs": 4})
    same = {"epochs": 4, "trackers": [], "checkpoint_steps": None}
    for trial in plan_trials(given):
        settings = trial_settings(given, trial)
        assert settings == given.training.model_copy(update=trial.changes | same)
    assert len({trial_id(trial_settings(given, trial)) for trial in plan_trials(given)}) == 12


def test_a_learned_temperature_is_refused_outside_its_range_and_left_out_of_triplet_trials() -> None:
    given = config(training={"learn_temperature": True}, sweep={"temperature": [0.5]})
    assert trial_settings(given, Trial("triplet", 0.2, 0.25)).learn_temperature is False
    with pytest.raises(ConfigError, match=r"trial info_nce, τ 0\.5.*between 0\.01 and 0\.2"):
        trial_settings(given, Trial("info_nce", 0.5, 0.25))


def test_a_loss_without_values_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.temperature is empty"):
        config(sweep={"temperature": []})


TRIALS = [Trial("info_nce", 0.05, 0.25), Trial("info_nce", 0.02, 0.25), Trial("triplet", 0.2, 0.25)]
SURE = {"resamples": 1000, "confidence": 0.95}


def test_a_clear_lead_is_chosen() -> None:
    choice = choose_trial(
        TRIALS,
        [
            finished([0.0] * 60 + [1.0] * 40),
            finished([1.0] * 30 + [0.0] * 30 + [1.0] * 40),
            TrialRecord("stopped", [0.1], 0.1, [0.1] * 100),
        ],
        **SURE,
    )
    assert choice.number == 1
    assert choice.interval is not None
    assert choice.interval.mean == pytest.approx(0.3)
    assert "beats" in choice.reason
    assert "100 dev queries" in choice.reason


def test_a_tie_goes_to_the_configuration_as_it_is() -> None:
    slightly_better = finished([0.0, 1.0] * 49 + [1.0, 1.0])
    choice = choose_trial(TRIALS, [finished([1.0, 0.0] * 50), finished([0.0, 1.0] * 50), slightly_better], **SURE)
    assert choice.number == 0
    assert choice.interval is not None
    assert choice.interval.low < 0 < choice.interval.high
    assert "only by chance" in choice.reason


def test_the_configuration_as_it_is_wins_among_equals_and_where_it_is_best() -> None:
    equal = choose_trial(TRIALS[:2], [finished([0.5] * 10), finished([0.5] * 10)], **SURE)
    assert (equal.number, equal.interval) == (0, None)
    assert "highest recall" in equal.reason


def test_few_dev_queries_choose_nothing() -> None:
    choice = choose_trial(TRIALS[:2], [finished([0.0] * 49), finished([1.0] * 49)], **SURE)
    assert choice.number == 0
    assert "49 evaluated queries, fewer than 50" in choice.reason


def test_what_diverged_or_was_stopped_is_not_chosen() -> None:
    diverged = TrialRecord("diverged", [0.9], reason="the loss is nan")
    choice = choose_trial(TRIALS, [diverged, TrialRecord("stopped", [0.9], 0.9, [0.9] * 4), finished([0.2] * 4)], **SURE)
    assert (choice.number, choice.interval) == (2, None)
    assert "diverged" in choice.reason
    with pytest.raises(TrainingDiverged, match=r"all 2 trials.*nan"):
        choose_trial(TRIALS[:2], [diverged, diverged], **SURE)


def test_the_chosen_configuration_reads_back_under_a_comment_that_says_how_sure_it_is() -> None:
    given = config(training={"learn_temperature": True}, sweep={"epochs": 2})
    records = [
        finished([0.0] * 60 + [1.0] * 40),
        TrialRecord("diverged", [], reason="the loss is nan"),
        finished([1.0] * 30 + [0.0] * 30 + [1.0] * 40),
    ]
    choice = choose_trial(TRIALS, records, **SURE)
    result = sweep_json(given, TRIALS, records, choice)
    assert [row["trial"] for row in result["trials"]] == [2, 0, 1], "by recall, what diverged last"
    assert [row["state"] for row in result["trials"]] == ["finished", "finished", "diverged"]
    assert (result["queries"], result["trials"][0]["temperature"], result["trials"][0]["margin"]) == (100, None, 0.2)
    text = best_toml(given, TRIALS, records, choice)
    comment = [line for line in text.splitlines() if line.startswith("#")]
    assert "3 trials" in comment[0]
    assert "100 dev queries" in comment[0]
    assert "beats the configuration as it is by +30.00 points" in comment[1]
    assert "noise" in comment[2]
    read = parse_config(tomllib.loads(text), source="test")
    assert read.training == given.training.model_copy(update=TRIALS[2].changes)
    assert read.model_copy(update={"training": given.training}) == given


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    there = tmp_path / "run.best.toml"
    check_out(there, force=False)
    there.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        check_out(there, force=False)
    check_out(there, force=True)
    with pytest.raises(ConfigError, match="no folder"):
        check_out(tmp_path / "nowhere/best.toml", force=True)


def test_a_sweep_of_a_run_that_mines_nothing_or_of_data_without_dev_is_refused(case: Any, refused: Any) -> None:
    case.set("rounds.mined", 0)
    refused(case.run(command="sweep"), 2, ["rounds.mined = 0"])
    case.set("rounds.mined", 1)
    for label in case.labels:
        label["score"] = int(label["query_id"] not in ("q8", "q9"))
    refused(case.run(command="sweep"), 2, ["none has a relevant item", "dev"])


def fill(case: Any) -> None:
    """A small catalogue instead of the case's rows."""
    made = generate_catalogue(num_titles=120, num_queries=200)
    case.items, case.queries, case.labels = (table.to_pylist() for table in (made.corpus, made.queries, made.qrels))
    case.settings |= {
        "encoder": {"kind": "static", "dimension": 16, "vocabulary": 512},
        "rounds": {"mined": 1, "warmup_epochs": 0},
        "mining": {"num_hits": 20, "num_negatives": 4},
        "training": {"batch_size": 16, "hard_negatives": 2, "random_fraction": 0.5},
        "sweep": {"temperature": [0.07, 0.3], "random_fraction": [0.5], "epochs": 3},
        "evaluation": {"num_hits": 10},
    }


@pytest.mark.cluster
def test_a_sweep_tries_stops_chooses_and_repeats_nothing(ray_case: Any, ray_local: Any) -> None:
    fill(ray_case)
    answer = ray_case.run("--json", command="sweep")
    assert answer.code == 0, answer.err
    assert answer.out.count("\n") == 1, "Tune prints nothing"
    result = json.loads(answer.out)
    rows = {row["trial"]: row for row in result["trials"]}
    assert [(rows[n]["loss"], rows[n]["temperature"], rows[n]["margin"]) for n in range(4)] == [
        ("info_nce", 0.05, None),
        ("info_nce", 0.07, None),
        ("info_nce", 0.3, None),
        ("triplet", None, 0.2),
    ]
    assert (rows[0]["epochs"], rows[0]["state"], rows[0]["as_it_is"]) == (3, "finished", True)
    assert (rows[2]["epochs"], rows[2]["state"]) == (1, "stopped"), "after one epoch it is far behind trial 1"
    assert all(1 <= row["epochs"] <= 3 and row["stopped_early"] == (row["epochs"] < 3) for row in rows.values())
    assert all(row["effective_negatives"] >= 1 and 0 < row["hardest_weight"] <= 1 for row in rows.values())
    assert result["queries"] == 20
    best = ray_case.folder / "run.best.toml"
    as_it_is = next(row for row in rows.values() if row["chosen"])["as_it_is"]
    assert result["out"] == (None if as_it_is else str(best)), "no file says what the configuration says"
    assert best.exists() == (not as_it_is)
    chosen = load_config(ray_case.folder / "run.toml" if as_it_is else best).training
    assert {name: getattr(chosen, name) for name in result["chosen"]} == result["chosen"]

    root = ray_case.folder / "out/run"
    (folder,) = (root / "sweep").iterdir()
    assert len(list(folder.glob("trial-*.json"))) == 4
    assert {path.name[:6] for path in folder.iterdir()} == {"trial-"}, "no model is kept, nor anything of Tune's"
    assert not (root / "commits/round-01-train.json").exists(), "the round itself is not trained"
    _check_records(folder, rows)

    best.write_text("# mine\n")
    assert "--force" in ray_case.run(command="sweep").message
    assert best.read_text() == "# mine\n"
    _check_that_only_what_is_new_runs(ray_case, folder, result)
    _check_that_a_divergence_is_a_row(ray_case)


def _check_records(folder: Path, rows: dict[int, Any]) -> None:
    """The figures of each query are those of the reported recall."""
    records = [json.loads(path.read_text()) for path in folder.glob("trial-*.json")]
    assert sorted(record["recall"] for record in records) == sorted(row["recall"] for row in rows.values())
    for record in records:
        assert record["recall"] == max(record["recalls"]) == pytest.approx(sum(record["per_query"]) / 20, abs=1e-6)


def _check_that_only_what_is_new_runs(case: Any, folder: Path, result: dict[str, Any]) -> None:
    """A record that is gone is made again, to the digit; a new combination is made, the others are not."""
    (gone,) = (
        path
        for path in folder.glob("trial-*.json")
        if json.loads(path.read_text())["recalls"] and json.loads(path.read_text())["recall"] == result["trials"][-1]["recall"]
    )
    before = {path.name: path.read_text() for path in folder.glob("trial-*.json")}
    gone.unlink()
    again = case.run("--json", "--force", "sweep.temperature=[0.07, 0.3, 0.2]", command="sweep")
    assert again.code == 0, again.err
    assert again.err.count("✓ trial") == 2, again.err
    after = {path.name: path.read_text() for path in folder.glob("trial-*.json")}
    assert len(after) == 5
    assert {name: text for name, text in after.items() if name in before and name != gone.name} == {
        name: text for name, text in before.items() if name != gone.name
    }
    both = json.loads(before[gone.name])["recalls"], json.loads(after[gone.name])["recalls"]
    assert all(one == other for one, other in zip(*both, strict=False)), "equal seeds"
    third = case.run("--force", "sweep.temperature=[0.07, 0.3, 0.2]", command="sweep")
    assert "5 of them kept" in third.err
    assert "✓ trial" not in third.err
    assert "finished" in third.out
    assert "τ 0.2" in third.out
    assert ("next:   hardmine run" in third.out) != ("no file is written" in third.out)


def _check_that_a_divergence_is_a_row(case: Any) -> None:
    from jobs.trials.sweep_tune import run_trials

    config = load_config(case.folder / "run.toml")
    good = trial_settings(config, plan_trials(config)[0])
    bad = good.model_copy(update={"learning_rate": 1e30, "gradient_clipping": 0.0, "warmup_fraction": 0.0})
    pool = PoolSize(1, 2, 0)
    ended: dict[int, TrialRecord] = {}
    with open_context(config, progress=Progress(quiet=True)) as context:
        job = make_job(context, [good, bad], pool)
        run_trials(job, pool, retries=0, on_end=ended.__setitem__)
    assert [ended[number].state for number in (0, 1)] == ["finished", "diverged"]
    assert "no longer finite" in str(ended[1].reason)
    assert job.find(1) == ended[1]
    with pytest.raises(TrainingDiverged):
        choose_trial([TRIALS[0]], [ended[1]], **SURE)
