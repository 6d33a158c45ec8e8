"""mining.md: the answer first, then everything, as text that Markdown shows as it is."""

from __future__ import annotations

from mining.choice.filters import Cuts
from mining.report.markdown import markdown, plain, waterfall
from mining.report.weak import ShownWeak
from mining.settings import MiningSettings
from tests.support.mining_figures import CONFUSION, SAMPLE, figures_of

SETTINGS = MiningSettings(num_negatives=10)


def test_the_waterfall_goes_from_all_candidates_to_what_is_left() -> None:
    figures = figures_of()
    steps = waterfall(figures.candidates, figures.dropped, figures.survivors)
    assert steps == [
        ("candidates", 10_000, 1.0),
        ("− positive", 100, 0.01),
        ("− rule:genres:disjoint", 1500, 0.15),
        ("− relative_margin", 400, 0.04),
        ("left", 8_000, 0.8),
    ]
    assert steps[0][1] - sum(count for _, count, _ in steps[1:-1]) == steps[-1][1]


def test_the_page_says_the_answer_first_and_shows_everything() -> None:
    figures = figures_of(samples=[SAMPLE], confusion=CONFUSION, warnings=["beware"], advice=["beware: set it"])
    assert "- beware\n" in markdown("shop, round-01-mine", figures, SETTINGS, advises=False), "a run has another voice for advice"
    page = markdown("shop, round-01-mine", figures, SETTINGS)
    lines = page.splitlines()
    assert lines[0] == "# Negatives: shop, round-01-mine"
    assert lines[2].startswith("**Hit rate 80.0%: 8,000 of 10,000 candidates")
    assert "- beware: set it" in lines
    assert "Search: mode ivf, engine faiss, recall 0.9950, 1.5 s." in lines
    assert "| − rule:genres:disjoint | 1,500 | 15.0% |" in lines
    assert "| crime | 40 | 75% | 25% |" in lines
    assert not any(line.startswith("| (none) |") for line in lines), "a row without a count is no row"
    assert "| i7 | Seven | 4 | 4.0% |" in lines
    assert "| new since the round before | 400 | 40.4% |" in lines
    assert "### 1. a \\*bold\\* question" in lines
    assert "- 0.500 right \\| so (i1)" in lines
    assert "- and 2 more" in lines
    assert "- [ ] 0.750 **!** (model, position 3) \\<b\\>wrong\\</b\\> (i2)" in lines
    assert "- [ ] 0.250 (judged) judged (i3)" in lines


def test_the_page_says_that_there_are_no_warnings_and_which_cuts_were_computed() -> None:
    assert markdown("x", figures_of(), SETTINGS).count("No warnings.") == 1
    calibrated = markdown("x", figures_of(cuts=Cuts(0.12345, None, 0.75)), SETTINGS)
    assert "Cuts computed for this model: relative 0.1235, ceiling 0.7500." in calibrated.splitlines()


def test_the_page_says_how_many_scores_of_a_teacher_are_shared() -> None:
    read = markdown("run", figures_of(teacher_read=2000, teacher_tied=100), MiningSettings(num_negatives=10))
    assert "The teacher has read 2,000 candidates; 5.0% of them share the highest score of their query." in read
    assert "The teacher has read" not in markdown("run", figures_of(), MiningSettings(num_negatives=10))


def test_the_page_lists_queries_whose_labels_are_weak_by_the_teacher() -> None:
    weak = [ShownWeak("q1", "a | b", "i4", "an item", 0.25, 31)]
    page = markdown("run", figures_of(teacher_read=9, relabelled=12, weak_queries=1, weak=weak), SETTINGS)
    assert "12 of what the teacher dropped are relevant items in training, with the source teacher." in page
    assert "1 of 100 queries are left out of training" in page
    assert "| a \\| b (q1) | an item (i4) | 0.250 | 31 |" in page.splitlines()
    none_shown = markdown("run", figures_of(weak_queries=1), SETTINGS)
    assert "1 of 100 queries are left out" in none_shown
    assert "its best relevant item" not in none_shown
    assert "Weak labels" not in markdown("run", figures_of(), SETTINGS)


def test_a_text_stays_one_plain_line() -> None:
    assert plain("a\n# b | `c` [d](e)") == "a \\# b \\| \\`c\\` \\[d\\](e)"
