"""Logs of other trainers as evidence: a loss and a held-out figure.

It reads these formats, and tells them apart by their content:

- `trainer_state.json` of the Hugging Face Trainer (also of sentence-transformers), and the lines it prints;
- CSV files of sentence-transformers' evaluators, e.g. `Information-Retrieval_evaluation_results.csv`;
- CSV exports of Weights & Biases and of TensorBoard (one curve per file, named by the file);
- any CSV, JSON list or JSON lines with a step, a loss and a figure under their usual names; also our own telemetry.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster.errors import DataError
from eval.diagnosis.evidence import F64, STEP_FIGURES, Arm, Evidence, Training

STEP = ("step", "steps", "global_step", "_step", "iteration", "iter", "batch")
LOSS = ("loss", "train_loss", "training_loss")
VALIDATION_LOSS = ("eval_loss", "val_loss", "validation_loss", "valid_loss", "dev_loss", "test_loss")
OTHER_NAMES = {"grad_norm": "gradient_norm", "lr": "learning_rate", "tau": "temperature"}
METRICS = (
    r"recall@10$",
    r"recall@",
    r"recall",
    r"ndcg@10$",
    r"ndcg",
    r"hit",
    r"mrr",
    r"map(@\d+)?$",
    r"accuracy@",
    r"accuracy",
    r"precision@",
    r"spearman",
)
"""Where a log has several held-out figures, the first of these is read."""
CANNOT = (
    "A loss and a held-out figure show divergence, spikes, over-fitting and standstill. They do not show why training "
    "stands still: for that, log {missing} as well (docs/plateau.md), or train with hardmine."
)
WHY = ("positive_probability", "hardest_weight", "effective_negatives", "negatives_per_query")
"""Columns that show why training stands still."""
EXPECTED = (
    "a trainer_state.json, or a CSV or JSON lines with a column for the step (step, global_step, epoch) and one for "
    "the loss (loss, train_loss) or a held-out figure (recall@10, ndcg@10, eval_loss …)"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class ForeignLog:
    """A log as evidence, and which columns were read as what."""

    evidence: Evidence
    lines: int
    loss: str | None
    """The column read as the training loss."""
    metric: str | None
    """The column read as the held-out figure."""
    runs: int = 1
    """Trainings in the log; the last one is read."""


def read_log(name: str, content: bytes, *, checkpoint: str | None = None) -> ForeignLog:
    """Read a log of another trainer.

    Args:
        name: of the file; the name of a TensorBoard export says what is in it.
        checkpoint: the folder of the model beside it; None: not known.

    Raises:
        DataError: it is none of the known formats, or has neither a loss nor a held-out figure.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: expected {EXPECTED}, found bytes that are not UTF-8 text ({error.reason} at byte "
            f"{error.start}); export the log as CSV or JSON lines"
        ) from None
    rows = [_plain_names(row) for row in _rows(name, text)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows, columns = _one_curve(name, rows, columns)
    rows, runs = _last_run(rows)
    loss = next((key for key in LOSS if key in columns), None)
    metric = _metric(columns, rows)
    if loss is None and metric is None:
        content_found = f"the columns {', '.join(columns[:12])}" if columns else "no rows"
        raise DataError(
            f"{name}: expected {EXPECTED}, found {content_found}; rename the columns, or export the loss and the figure together"
        )
    figure = f"exp(-{metric})" if metric in VALIDATION_LOSS else metric or "recall"
    evidence = Evidence([Arm("log", None, [_training(name, rows, loss, metric)])], primary=figure)
    evidence = evidence if checkpoint is None else replace(evidence, checkpoint=checkpoint)
    return ForeignLog(evidence, len(rows), loss, metric, runs)


def _rows(name: str, text: str) -> list[Row]:
    stripped = text.lstrip()
    if stripped.startswith(("{", "[")):
        return _json_rows(name, stripped)
    printed = [line for line in text.splitlines() if line.strip().startswith("{'")]
    if printed:  # what the Hugging Face Trainer prints, among other lines
        return [row for line in printed if (row := _literal(line)) is not None]
    try:
        header = csv.Sniffer().sniff(text[:4096], delimiters=",;\t").delimiter
    except csv.Error:
        header = ","
    try:
        return [
            {key: value for key, value in row.items() if key is not None and value not in (None, "")}
            for row in csv.DictReader(io.StringIO(text), delimiter=header)
        ]
    except csv.Error as error:
        raise DataError(f"{name}: expected {EXPECTED}, found a CSV that cannot be read ({error})") from None


def _json_rows(name: str, text: str) -> list[Row]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = [row for line in text.splitlines() if line.strip() if (row := _line(line)) is not None]
        if not value:
            raise DataError(
                f"{name}: expected {EXPECTED}, found text that begins like JSON but is not; export the log as CSV or JSON lines"
            ) from None
    if isinstance(value, dict):
        value = value.get("log_history", [value])
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(
            f"{name}: expected {EXPECTED}, found JSON without a list of objects; write a list as in "
            f"the log_history of a trainer_state.json"
        )
    return value


def _line(line: str) -> Row | None:
    """The JSON object of a line; None: it holds none (a killed run leaves half a line)."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return _literal(line)
    return value if isinstance(value, dict) else None


def _literal(line: str) -> Row | None:
    try:
        value = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _plain_names(row: Mapping[str, Any]) -> Row:
    """Names in lower case, without the run (W&B: "my-run - train/loss") and without the group ("train/", "eval/")."""
    plain: Row = {}
    for key, value in row.items():
        name = str(key).rsplit(" - ", 1)[-1].strip().lower()
        if name.endswith(("__min", "__max")):
            continue
        group, slash, last = name.rpartition("/")
        held_out = group.split("/")[0] in ("eval", "val", "valid", "validation", "dev", "test")
        name = f"eval_{last}" if slash and held_out and last == "loss" else last if slash else name
        plain.setdefault(OTHER_NAMES.get(name, name), value)
    return plain


def _one_curve(name: str, rows: list[Row], columns: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Names the value of a TensorBoard export (Wall time, Step, Value) after its file; returns (rows, columns)."""
    if "value" not in columns or "wall time" not in columns:
        return rows, list(columns)
    tag = name.rsplit("/", 1)[-1].lower()
    held_out = re.search(r"eval|val|dev|test", tag)
    known = next((figure for figure in ("recall", "ndcg", "mrr", "map", "hit", "accuracy") if figure in tag), None)
    column = ("eval_loss" if held_out else "loss") if "loss" in tag else known
    if column is None:
        raise DataError(
            f"{name}: expected a TensorBoard export whose file name says what is in it (loss, recall, ndcg …), found "
            f"none of these in the name; rename the file, e.g. train_loss.csv"
        )
    return [{"step": row.get("step"), column: row.get("value")} for row in rows], ["step", column]


def _metric(columns: Sequence[str], rows: Sequence[Row]) -> str | None:
    filled = [
        column
        for column in columns
        if column not in STEP_FIGURES and any(math.isfinite(_number(row.get(column))) for row in rows)
    ]
    for pattern in METRICS:
        for column in filled:
            if re.search(pattern, column):
                return column
    return next((column for column in columns if column in VALIDATION_LOSS), None)


def _last_run(rows: list[Row]) -> tuple[list[Row], int]:
    """(the rows of the last training, number of trainings): a new one begins where the step is back at the first step.

    A resumed training goes back too, but not to the beginning.
    """
    times, _ = _time_axis(rows, _step_column(rows))
    back = np.flatnonzero((np.diff(times) < 0) & (times[1:] <= times[0])) + 1 if len(times) else np.zeros(0, np.int64)
    return rows[int(back[-1]) if len(back) else 0 :], len(back) + 1


def _step_column(rows: Sequence[Row]) -> str | None:
    return next((key for key in STEP if any(key in row for row in rows)), None)


def _training(name: str, rows: Sequence[Row], loss: str | None, metric: str | None) -> Training:
    times, axis = _time_axis(rows, _step_column(rows))
    steps: dict[str, F64] = {}
    trained = [n for n, row in enumerate(rows) if loss is not None and row.get(loss) is not None]
    if trained:
        steps["step"] = times[trained]
        steps["loss"] = np.array([_loss(rows[n][loss]) for n in trained])  # type: ignore[index]
        for column in STEP_FIGURES:
            if column not in ("step", "loss", metric) and any(column in rows[n] for n in trained):
                steps[column] = np.array([_number(rows[n].get(column)) for n in trained])
    checked = [n for n, row in enumerate(rows) if metric is not None and math.isfinite(_number(row.get(metric)))]
    figure = np.array([_number(rows[n][metric]) for n in checked]) if metric is not None else np.zeros(0)
    places = [_place(rows[n], n, axis) for n in checked]
    return Training(
        name.rsplit("/", 1)[-1], 0, steps, times[checked] if checked else np.zeros(0), _as_share(figure, metric), places
    )


def _place(row: Row, number: int, axis: str | None) -> str:
    """Where a row stands in its training, in the log's own words: "step 750, epoch 0.75"."""
    epoch = _number(row.get("epoch"))
    told = [f"step {_number(row.get(axis)):,.0f}"] if axis not in (None, "epoch") else []
    told += [f"epoch {epoch:.4g}"] if math.isfinite(epoch) else []
    return ", ".join(told) or f"line {number + 1:,}"


def _time_axis(rows: Sequence[Row], step_column: str | None) -> tuple[F64, str | None]:
    """([rows] the position of each row on the time axis: its step, else its epoch, else its number; the column of it)."""
    epochs = np.array([_number(row.get("epoch")) for row in rows])
    for column in (step_column, "epoch"):
        values = np.array([_number(row.get(column)) for row in rows]) if column else np.zeros(0)
        # sentence-transformers' evaluators restart the step in every epoch, and write -1 for its end
        restarts = (values < 0).any() or ((np.diff(values) < 0) & (np.diff(epochs) > 0)).any() if len(values) else True
        if np.isfinite(values).any() and not restarts and len(np.unique(values)) > 1:
            return values, column
    return np.arange(1, len(rows) + 1, dtype=np.float64), None


def _as_share(values: F64, metric: str | None) -> F64:
    """Per cent as shares; a validation loss as exp(-loss), the geometric mean probability of the right answer."""
    if metric in VALIDATION_LOSS:
        return np.exp(-values)
    return values / 100 if len(values) and values.max() > 1.0 else values


def _loss(value: Any) -> float:
    """Infinite where the log says NaN: the training diverged there, while a missing figure says nothing."""
    number = _number(value)
    return number if math.isfinite(number) else math.inf


def _number(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def headline(log: ForeignLog) -> Iterable[str]:
    """Lines that say what was read."""
    yield f"{log.lines:,} lines; training loss: {log.loss or 'none'}; held-out figure: {log.metric or 'none'}"
    if log.runs > 1:
        yield f"the log holds {log.runs} trainings; this reads the last one"
    if log.metric in VALIDATION_LOSS:
        yield f"{log.metric} is read as exp(-loss): a held-out recall would say more"
    has = {column for arm in log.evidence.arms for training in arm.trainings for column in training.steps}
    missing = [column for column in WHY if column not in has]
    if missing:
        yield CANNOT.format(missing=", ".join(missing))
