"""The page: its figures are the JSON's, nothing comes from anywhere else, and no text of the data can become markup."""

from __future__ import annotations

import copy
import html
import io
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.session.progress import Progress
from cluster.storage.records import write_record
from cluster.storage.store import Store
from jobs.finished.finished_run import open_finished
from jobs.finished.gate.gate import judge
from jobs.finished.show import rounds_table
from jobs.report.answer import answer
from jobs.report.charts.drawing import chart_library
from jobs.report.charts.mining import heat_rows
from jobs.report.charts.recall import recall_chart
from jobs.report.charts.uplift import _bin, uplift_charts
from jobs.report.gather import gather
from jobs.report.page import check_sentence, render_run
from jobs.report.tables import all_tables, duration, size
from jobs.report.write import write_after_run
from tests.support.synthetic_run import write_run


class Page(HTMLParser):
    """Attributes that fetch, elements, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetches: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.handlers += [name for name in found if name.startswith("on")]
        self.ids += [found["id"]] if found.get("id") else []
        self.fetches += [str(found[name]) for name in ("src", "href", "action", "srcset", "poster", "data") if found.get(name)]


def script(page: str, identity: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{identity}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_the_dict_and_shows_its_figures(page: str, report: dict[str, Any]) -> None:
    assert script(page, "report") == report
    visible = html.unescape(page)
    for card in answer(report)["cards"]:
        assert f"{card['before']:.3f}" in visible
        assert f"{card['after']:.3f}" in visible
    for model in report["models"]:
        assert f"{model['metrics']['recall@10']:.3f}" in visible


def test_the_charts_draw_the_figures_of_the_dict(page: str, report: dict[str, Any]) -> None:
    charts = script(page, "charts")
    steps = charts["datasets"]["steps"]
    loss = [row[steps["columns"].index("loss")] for row in steps["rows"]]
    assert len(loss) == sum(len(training["curves"]["loss"]) for training in report["training"])
    assert (
        max(
            abs(got - want)
            for got, want in zip(
                loss, (value for training in report["training"] for value in training["curves"]["loss"]), strict=True
            )
        )
        < 1e-3
    )
    uplift = charts["specs"]["uplift-recall-3"]["data"]["values"]
    assert [row["mean"] for row in uplift[1:]] == [
        100 * model["against_baseline"]["recall@3"]["mean"] for model in report["models"][1:]
    ]


def test_every_chart_has_a_place_a_description_and_a_table(page: str) -> None:
    charts = script(page, "charts")["specs"]
    assert len(charts) >= 15
    for identity, spec in charts.items():
        figure = re.search(rf'<figure class="chart" id="chart-{identity}">(.*?)</figure>', page, re.DOTALL)
        assert figure is not None, identity
        assert "<table" in figure[1]
        assert "<figcaption>" in figure[1]
        assert len(spec["description"]) > 20


def test_every_chart_is_a_picture_without_the_script(page: str) -> None:
    charts = script(page, "charts")["specs"]
    for identity, spec in charts.items():
        picture = re.search(rf'data-chart="{identity}">(<svg .*?</svg>)</div>', page, re.DOTALL)
        assert picture is not None, identity
        assert picture[1].count("<path") + picture[1].count("<line") > 3, "something is drawn"
        assert html.escape(spec["description"]) in picture[1], "and described"
        assert "var(--" in picture[1], "in the page's colours"


def test_a_hostile_group_is_a_text_in_the_picture(report: dict[str, Any]) -> None:
    evil = "</text></svg><script>alert(2)</script>"
    rows = [row | {"value": evil} for row in report["slices"]]
    assert "<script>alert(2)" not in render_run(report | {"slices": rows}).replace(chart_library(), "")


def test_the_caption_of_a_gain_agrees_with_its_verdicts(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    for model in changed["models"][1:]:
        model["against_baseline"]["recall@10"] = {
            "mean": 0.1, "low": 0.05, "high": 0.15, "queries": 100, "p_adjusted": 0.001, "significant": True
        }  # fmt: skip
    charts = {chart.id: chart for chart in uplift_charts(changed)}
    assert "All differences are significant." in charts["uplift-recall-10"].look
    # the interval lies above 0, but p does not stand after the correction
    changed["models"][1]["against_baseline"]["recall@10"] |= {"p_adjusted": 0.08, "significant": False}
    chart = next(chart for chart in uplift_charts(changed) if chart.id == "uplift-recall-10")
    assert "Hollow: not proven, chance alone could have made the difference (warm-up)." in chart.look
    assert "although a bar does not touch 0" in chart.look
    assert chart.columns[-2:] == ("p, corrected", "against off the shelf")
    assert chart.rows[1][-2:] == ["0.080", "● not proven"]
    assert [row["open"] for row in chart.spec["data"]["values"]] == [False, True, False, False, False]


def test_every_figure_of_every_model_is_a_cell_and_verdicts_say_against_what(report: dict[str, Any]) -> None:
    tables = all_tables(report | {"models": [model | {"attainable": {"recall@3": 0.75}} for model in report["models"]]})
    assert tables["models"]["columns"][-2:] == ("against off the shelf", "against the best before")
    assert tables["models"]["rows"][-1][-1].endswith(", against round 2"), "the last row is random only"
    assert tables["metrics"]["columns"][0] == "figure"
    assert [name for name in tables["metrics"]["columns"] if "(kept)" in name] == ["round 2 (kept)"]
    recall = next(row for row in tables["metrics"]["rows"] if row[0] == "Recall@3")
    assert recall[1:-1] == [f"{model['metrics']['recall@3']:.3f}" for model in report["models"]]
    assert recall[-1] == "0.750"


def test_a_page_speaks_of_each_model_by_one_name(page: str) -> None:
    visible = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    for word in ("random arm", " arm<", "★", "baseline<", "model you started from", "relevant_trained"):
        assert word not in visible, word


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    found = Page(page)
    assert [address for address in found.fetches if not address.startswith(("#", "data:,"))] == []
    own = page.replace(chart_library(), "")
    assert re.findall(r"https?://|[\"'(]//|@import|url\(", own) == []
    assert "default-src 'none'" in page, "the browser refuses what a later version might forget"


def test_hostile_texts_stay_texts(page: str, made_up: Store) -> None:
    own = page.replace(chart_library(), "")
    assert "<img src=x" not in own
    assert "<script>alert" not in own
    assert "{{ 7*7 }}" in html.unescape(own), "no text of the data is a template"
    assert "&lt;/script&gt;&lt;script&gt;" in own, "shown as it is"
    found = Page(page)
    assert found.handlers == []
    assert found.tags.count("script") == 4
    assert "img" not in found.tags


def test_identifiers_are_unique_and_headings_in_order(page: str) -> None:
    found = Page(page)
    assert len(set(found.ids)) == len(found.ids)
    levels = [int(tag[1]) for tag in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_an_unfinished_run_is_a_page(unfinished: Store) -> None:
    text = render_run(gather(unfinished))
    assert 'id="uplift"' in text
    assert "The run is not finished" in text


def test_a_merged_model_that_is_kept_has_its_row_and_its_gain_and_is_no_step_of_a_training(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run", merged=True)
    found = gather(store)
    assert [model["label"] for model in found["models"]][-2:] == ["merged 50 %", "random only"]
    assert found["best"] == "merged-50"
    text = html.unescape(render_run(found))
    assert "merged 50 % (kept)" in text
    assert "Merged n % is an average of the weights" in text
    recall = recall_chart(found)
    assert recall is not None
    assert "merged" not in json.dumps(recall.spec)
    assert "merged 50 %" in json.dumps(uplift_charts(found)[0].spec)
    console = Console(file=io.StringIO(), width=200)
    console.print(rounds_table(open_finished(store).summary))
    assert "merged 50 % (kept)" in console.file.getvalue()
    judged = judge(store, without_latency="not now")
    assert (judged["round"], judged["split"]) == (150, "dev")


def test_a_report_that_fails_fails_no_run(tmp_path: Any, capsys: Any) -> None:
    assert write_after_run(Store(str(tmp_path)), Progress()) is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the report could not be written" in said


def test_a_finished_run_has_its_report_beside_it(made_up: Store) -> None:
    path = write_after_run(made_up, Progress(quiet=True))
    assert path == made_up.url("report.html")
    assert made_up.read_bytes("report.html").startswith(b"<!doctype html>")
    made_up.write_bytes("report.html", b"kept")
    write_after_run(made_up, Progress(quiet=True), overwrite=False)
    assert made_up.read_bytes("report.html") == b"kept"


def test_a_heat_map_has_shares_of_rows_and_at_most_14_values() -> None:
    values = [f"v{n}" for n in range(20)]
    found = heat_rows(
        {"column": "genres", "values": values, "counts": [[int(n == m) * n + 1 for m in range(20)] for n in range(20)]}
    )
    assert found is not None
    assert len(found["rows"]) == len(found["values"]) == 14
    assert found["left_out"] == 6
    assert found["rows"][-1]["cells"][-1] == {"share": 20 / 39, "count": 20, "same": True}
    assert heat_rows(None) is None


def test_sizes_and_times_read_easily() -> None:
    assert [size(count) for count in (12, 6_867_040, 2.5e9)] == ["12 B", "6.9 MB", "2.5 GB"]
    assert [duration(seconds) for seconds in (12.4, 180, 7300)] == ["12 s", "3 min 0 s", "2 h 1 min"]


def test_what_the_page_is_made_of_travels_to_a_cluster() -> None:
    from jobs.report.page import TEMPLATES
    from jobs.run.job_folder import SHIPPED

    assert {path.suffix for path in TEMPLATES.iterdir()} <= SHIPPED


def test_the_general_set_and_the_test_split_are_shown_where_they_are(report: dict[str, Any]) -> None:
    worse = {"mean": -0.05, "low": -0.08, "high": -0.02, "queries": 90, "significant": True, "p": 0.001, "p_adjusted": 0.001}
    metrics = {"recall@3": 0.4321, "recall@10": 0.5, "ndcg@10": 0.45, "bad_top1": 0.5}
    general = [
        {"label": "off the shelf", "arm": "baseline", "queries": 90, "metrics": metrics, "against_baseline": {}},
        {"label": "round 2", "arm": "mined", "queries": 90, "metrics": metrics, "against_baseline": {"recall@3": worse}},
    ]
    split = {
        "baseline": {"metrics": metrics, "against_baseline": None},
        "best": {"metrics": metrics, "against_baseline": {"recall@3": worse, "verdict": "worse"}},
    }
    text = html.unescape(render_run(report | {"general": general, "test": split}))
    assert "what was forgotten" in text
    assert "−5.0 points [−8.0, −2.0]" in text
    assert "The last look: the test split" in text
    assert "No, it got worse: Recall@3 0.432 → 0.432" in text, "the test split answers"


def test_a_mining_alone_is_a_page_of_its_mining(tmp_path: Any) -> None:
    from cluster.commits import Ledger, Outcome

    store = Store(str(tmp_path))
    write_record(store, "identity.json", {"data": {}, "encoder": {}})
    figures = {
        "queries": 5,
        "candidates": 50,
        "survivors": 40,
        "chosen": 20,
        "hit_rate": 0.8,
        "dropped": {"positive": 10},
        "queries_short": 0,
        "suspected_false_negatives": 1,
        "above_positive": 0,
        "warnings": ["watch out"],
        "advice": ["watch out: set it"],
    }
    Ledger(store).stage("mine-report", inputs={}, folder="mine", work=lambda _: Outcome(figures=figures))
    text = render_run(gather(store))
    assert "Nothing is measured yet." in text
    assert "Where the candidates went: mining alone" in text
    assert "watch out" in text


def test_the_gate_writes_the_report_anew(ray_case: Any, made_up: Store, tmp_path: Path) -> None:
    run = Store(str(shutil.copytree(made_up.root, tmp_path / "copy")))
    if run.exists("report.html"):  # another test's
        run.delete("report.html")
    gate = ("gate", run.root, "--no-latency")
    ray_case.hardmine(*gate, "evaluation.gate.min_gain=90")
    assert not run.exists("report.html"), "it writes no report where there was none"
    for words, want in (
        (["evaluation.gate.min_gain=90"], "Do not ship yet: 1 of 9 gate checks failed (gain:recall@3)."),
        ([], "Ship it: no check of the gate failed"),
    ):
        run.write_bytes("report.html", b"Ship it, says a report of before the gate")
        assert ray_case.hardmine(*gate, *words).code == (0 if want.startswith("Ship") else 1)
        assert want in html.unescape(run.read_bytes("report.html").decode())


def test_a_check_says_its_outcome_once_and_its_command_as_code() -> None:
    told = {"why": None, "text": "slices worse, of 3: 2 (at most 0): not passed: genre = <b>"}
    assert check_sentence(told) == "slices worse, of 3: 2 (at most 0): genre = &lt;b&gt;"
    chance = "gain: +2.5 points [0.0, +5.8] (at least +0.0 points): inconclusive, as the interval crosses the threshold"
    assert check_sentence({"why": None, "text": chance}) == (
        "gain: +2.5 points [0.0, +5.8] (at least +0.0 points); the interval crosses the threshold"
    )
    told = {"why": "the report measures no times; `hardmine gate <runs>` does", "text": "x was not checked: …"}
    assert check_sentence(told) == "the report measures no times; <code>hardmine gate &lt;runs&gt;</code> does"


def test_a_bin_says_which_end_it_includes() -> None:
    assert [
        _bin({"low": low, "high": high}) for low, high in ((0.4, 0.5), (0.0, 0.1), (-0.5, -0.4), (-0.1, 0.0), (0.0, 0.0))
    ] == ["above +0.4, to +0.5", "above 0, to +0.1", "below −0.4, to −0.5", "below 0, to −0.1", "no change"]


def test_titles_that_are_alike_have_ids_and_tags_in_texts_have_words(page: str, report: dict[str, Any]) -> None:
    item = report["changes"]["winners"][0]["after"][0]
    assert f'<code class="quiet">{item["item_id"]}</code>' in page
    leakage = {"text": {"positives": 0.5, "random": 0.1}, "text:category": {"positives": 0.5, "random": 0.1}}
    rows = all_tables(report | {"leakage": leakage})["leakage"]["rows"]
    assert [row[0] for row in rows] == ["any of these columns, named in the query's text", "category, named in the query's text"]


def test_a_re_ranker_has_a_section_with_its_answer_its_table_and_what_it_takes(page: str, report: dict[str, Any]) -> None:
    section = page[page.index('<section id="reranking"') :].partition("</section>")[0]
    assert report["reranker"]["sentence"] in unescape(section)
    for words in ("fine-tuned *", "+7.0 [+4.0, +10.0]", "ties at the top", "1,500.0 ms", "2 CPU threads", "genres", "war"):
        assert words in section, words


def test_a_run_without_a_re_ranker_has_no_such_section(unfinished: Store) -> None:
    assert 'id="reranking"' not in render_run(gather(unfinished))
