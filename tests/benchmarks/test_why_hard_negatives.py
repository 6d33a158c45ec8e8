"""docs/why-hard-negatives.md: its formulas, and that what it names exists."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.why.figures import (
    chance_of_hard,
    draws_for_chance,
    effective_number,
    expected_best_position,
    softmax_gradient,
    weights_by_position,
)
from benchmarks.why.pictures import spread
from benchmarks.why.world import Recipe, make_world
from eval.diagnosis.evidence import STEP_FIGURES
from jobs.config.config import Config
from training.objective.losses import info_nce
from training.telemetry.gradient_geometry import geometry_figures, geometry_sums

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "why-hard-negatives.md"
COSINES = np.array([0.70, 0.66, 0.55, 0.30, 0.05])


@pytest.mark.parametrize("temperature", [0.02, 0.05, 0.5])
def test_the_gradient_of_the_page_is_that_of_the_loss(temperature):
    # a query along the first axis: the cosines are the items' first coordinates
    items = torch.tensor(np.stack([COSINES, np.sqrt(1 - COSINES**2)], axis=1), requires_grad=True)
    info_nce(
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        items,
        torch.tensor([0]),
        temperature=temperature,
        masked_BC=torch.zeros(1, 5, dtype=torch.bool),
    ).loss.backward()
    p, gradient = softmax_gradient(COSINES, temperature)
    np.testing.assert_allclose(gradient, items.grad[:, 0], rtol=1e-9)
    assert gradient.sum() == pytest.approx(0, abs=1e-9)
    assert p.sum() == pytest.approx(1)


def test_weights_by_position_sum_to_one_and_agree_with_telemetry():
    scores = -np.sort(-np.random.default_rng(0).uniform(-0.2, 0.6, (7, 50)), axis=1)
    logits = torch.tensor(np.hstack([np.full((7, 1), 0.7), scores]) / 0.05)
    sums = geometry_sums(logits, torch.zeros(7, dtype=torch.int64), torch.ones(7, 51, dtype=torch.uint8))
    figures = geometry_figures(sums, 0.05)
    weights = weights_by_position(scores, 0.05)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights) <= 0).all()
    assert weights[0] == pytest.approx(figures["hardest_weight"], rel=1e-5)
    assert effective_number(scores, 0.05) == pytest.approx(figures["effective_negatives"], rel=1e-5)


def test_a_soft_temperature_weighs_all_alike_and_a_sharp_one_sees_the_hardest_alone():
    scores = -np.sort(-np.random.default_rng(0).uniform(-0.2, 0.6, (7, 50)), axis=1)
    assert effective_number(scores, 100.0) == pytest.approx(50, rel=1e-3)
    assert effective_number(scores, 1e-5) == pytest.approx(1, rel=1e-3)


def test_the_expected_position_of_the_hardest_is_that_of_a_simulation():
    rng = np.random.default_rng(0)
    best = [rng.choice(500, 9, replace=False).min() + 1 for _ in range(4000)]
    assert np.mean(best) == pytest.approx(expected_best_position(500, 9), rel=0.03)
    assert expected_best_position(500, 500) == 1


def test_the_chance_of_a_hard_one_is_that_of_a_simulation_and_its_inverse_agrees():
    rng = np.random.default_rng(0)
    found = [rng.choice(500, 30, replace=False).min() < 12 for _ in range(4000)]
    assert np.mean(found) == pytest.approx(chance_of_hard(500, 12, 30), abs=0.02)
    assert chance_of_hard(500, 12, 0) == 0
    assert chance_of_hard(500, 12, 489) == 1
    draws = draws_for_chance(500, 12, 0.5)
    assert chance_of_hard(500, 12, draws - 1) < 0.5 <= chance_of_hard(500, 12, draws)


def test_the_catalogue_knows_which_negatives_are_false():
    recipe = Recipe(works=60, genre_size=5, families=3, editions=3, train=20, dev=10)
    world = make_world(recipe, 0)
    assert (world.work_N[world.positive_Q] == world.work_Q).all()
    rows = world.train_rows[:4]
    false = world.false_negatives(rows, np.arange(180))
    assert false.sum(axis=1).tolist() == [2, 2, 2, 2]
    assert not false[np.arange(4), world.positive_Q[rows]].any()
    grouped = make_world(recipe, 0, group="work")
    np.testing.assert_array_equal(world.items_ND, grouped.items_ND)
    known = grouped.labels.known_mask(rows, np.arange(180))
    known[np.arange(4), world.positive_Q[rows]] = False
    np.testing.assert_array_equal(known, false)


def test_labels_at_the_ends_of_lines_never_touch_and_keep_their_order():
    placed = spread([0.0, 1.0, 2.0, 50.0], 10.0)
    assert np.diff(placed).min() >= 10 - 1e-9
    assert np.mean(placed[:3]) == pytest.approx(1.0)
    assert placed[3] == 50.0


def test_the_page_names_only_files_that_exist_and_pictures_that_are_small():
    text = PAGE.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)#\s]+)", text)]
    local = [link for link in links if not link.startswith("http")]
    for link in local:
        assert (PAGE.parent / link).exists(), link
    pictures = [PAGE.parent / link for link in local if link.endswith((".svg", ".png"))]
    assert len(pictures) >= 5
    assert all(picture.stat().st_size < 150_000 for picture in pictures)
    assert all(len(alt) > 60 for alt in re.findall(r"!\[([^\]]*)\]", text)), "a picture needs a text that stands in for it"
    for path in re.findall(r"`((?:benchmarks|training|mining|eval|jobs|docs|tests)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


def test_the_page_explains_figures_by_the_names_that_telemetry_gives_them():
    named = set(re.findall(r"`((?:gradient|cosine|dead|above|effective|hardest|positive|mean_pairwise)_\w+)`", PAGE.read_text()))
    known = {*STEP_FIGURES, *geometry_figures(torch.zeros(25), 1.0), "positive_quantile"}
    assert named
    assert named <= known, named - known


def test_every_setting_that_the_page_names_exists():
    named = re.findall(r"`((?:training|mining|encoder|rounds|data)\.[a-z_]+)(?==|`)", PAGE.read_text())
    assert len(named) > 10
    for name in named:
        if name.endswith(".md"):
            continue
        section, _, key = name.partition(".")
        fields = Config.model_fields[section].annotation.model_fields
        assert key in fields, name
