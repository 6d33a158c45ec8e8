"""`hardmine init`: from a folder of tables to a configuration that runs. Reads and measures, decides nothing itself."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cluster.errors import ConfigError, DataError, one_paragraph
from cluster.session.progress import Progress
from cluster.storage.settings import StorageSettings
from cluster.storage.store import is_s3
from jobs.config.config import Config, parse_config, put_override
from jobs.config.data import DataSettings
from jobs.config.strict import validate
from jobs.init.choices import ALL_REPEATED, Choice, choose, dev_fraction, warnings
from jobs.init.figures import Figures, first_scores, measure
from jobs.init.found_tables import look_into
from jobs.init.machine import Machine, this_machine
from jobs.init.roles import Roles, find_roles
from jobs.init.toml_file import to_lines
from jobs.stages.ingest.models.known_models import models_elsewhere


def write_config(
    address: str, to: Path, overrides: Sequence[str] = (), *, force: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Look at the tables at `address` and write a configuration for them.

    Args:
        address: a folder on a disk or s3://.
        to: the file to write.
        overrides: section.key=value, which are written as they are.
        force: `to` may be overwritten.
        progress: is told which table is what, before all of them are read.

    Returns:
        What was seen and chosen, as `--json` prints it.

    Raises:
        ConfigError: there is a file at `to`, or an override is wrong.
        DataError: the folder holds nothing that is known, or what a run would refuse.
    """
    if to.exists() and not force:
        raise ConfigError(f"expected no file at {to}, found one, which may be yours; name another one with --to, or add --force")
    own: dict[str, Any] = {}
    keys = [put_override(own, override) for override in overrides]
    progress = progress or Progress(quiet=True)
    storage = validate(StorageSettings, own.get("storage", {}), source="the words after DATA")
    folder = look_into(address, storage)
    roles = None if folder.beir else find_roles(folder)
    if roles is not None:
        progress.say(f"  items: {roles.items.name}, queries: {roles.queries.name}, labels: {roles.labels.name}")
    data = list(_beir(folder.url, to) if roles is None else _of_roles(roles, to))
    figures, more = _measured(data, own, storage, to)
    if not figures.with_positive.get("train"):
        raise DataError(_nothing_to_train(figures, folder.url))
    machine = this_machine()
    chosen = [*_names(folder.url, own), *data, *more, *choose(figures, machine, own.get("training"))]
    choices = _with_overrides(list({choice.key: choice for choice in chosen}.values()), own, keys)  # of one key the last
    text = "\n".join(to_lines(_head(address, figures, machine), choices)) + "\n"
    config = _checked(text, to)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text, encoding="utf-8")
    return {
        "config": str(to),
        "run": config.root,
        "data": figures.as_json(),
        "machine": str(machine),
        "settings": {choice.key: choice.value for choice in choices if not choice.off},
        "reasons": {choice.key: choice.reason for choice in choices},
        "warnings": [
            *_of_tables(roles, more),
            *models_elsewhere(config),
            *warnings(figures, machine, own_model="model" in own.get("encoder", {})),
        ],
        "next": [f"hardmine run {to} --dry-run", f"hardmine probe {to}", f"hardmine run {to}"],
    }


def _of_tables(roles: Roles | None, more: Sequence[Choice]) -> Iterator[str]:
    """Warnings about which tables are read, and how."""
    if roles is not None and roles.unused:
        yield f"not used: {', '.join(roles.unused)}. Queries of several splits belong into one table, and so do labels"
    for choice in more:
        if choice.key == "data.relevant_from":
            yield f"{choice.key} = {choice.value:g} is a guess: {choice.reason}"


def _beir(url: str, to: Path) -> Iterator[Choice]:
    yield Choice("data.folder", _relative(url, to), "BEIR layout: corpus.jsonl, queries.jsonl, qrels/*.tsv")


def _of_roles(roles: Roles, to: Path) -> Iterator[Choice]:
    for key, table in (("corpus", roles.items), ("queries", roles.queries), ("qrels", roles.labels)):
        yield Choice(f"data.{key}", _relative(table.url, to), "")
    if roles.columns:
        yield Choice("data.columns", dict(roles.columns), "our name = the name in your tables")
    if not roles.item_fields or not roles.query_fields:
        table = roles.queries if roles.item_fields else roles.items
        if "vector" not in roles.columns and "vector" not in table.columns:
            raise DataError(
                f"{table.described}: expected a column with the text, called text, title, description, query or the like, or a "
                f"column `vector`; found none with words in it. Rename or add it"
            )
        # words that differ, so that a query and an item of one id are not taken for the same thing
        yield Choice("data.item_text", "{id} (item)", "no texts, only vectors: the id stands for the text in reports")
        yield Choice("data.query_text", "{id} (query)", "")
        return
    ours = {theirs: name for name, theirs in roles.columns.items() if name in ("title", "text")}
    items, queries = (
        " ".join(f"{{{ours.get(name, name)}}}" for name in names) for names in (roles.item_fields, roles.query_fields)
    )
    yield Choice("data.item_text", items, "")
    if queries != "{text}":
        yield Choice("data.query_text", queries, "")


def _measured(data: list[Choice], own: dict[str, Any], storage: StorageSettings, to: Path) -> tuple[Figures, list[Choice]]:
    """The figures of the tables, and further settings of [data] that follow from them."""
    values = {choice.key.removeprefix("data."): choice.value for choice in data} | own.get("data", {})
    more: list[Choice] = []

    def settings() -> DataSettings:
        section = values | {choice.key.removeprefix("data."): choice.value for choice in more}
        for name in ("corpus", "queries", "qrels", "folder"):
            if name in section and not is_s3(section[name]):
                section[name] = str((to.absolute().parent / section[name]).resolve())
        return validate(DataSettings, section, source="[data]")

    scores = first_scores(settings(), storage)
    if "relevant_from" not in values and (scores != np.floor(scores)).any():
        middle = float(round((scores.min() + scores.max()) / 2, 2))
        reason = f"scores go from {scores.min():g} to {scores.max():g}: relevant from here on? Check it"
        more.append(Choice("data.relevant_from", middle, reason))
    figures = measure(settings(), storage)
    if "item_text" not in own.get("data", {}):
        more.append(_item_text(values.get("item_text", "{title} {text}"), figures))
    share = dev_fraction(figures)
    if share is not None and "dev_fraction" not in values:
        more.append(Choice("data.dev_fraction", share, "no dev split: this share of the training queries becomes one"))
        figures = measure(settings(), storage)
    return figures, more


def _item_text(template: str, figures: Figures) -> Choice:
    """The template, without the title where the texts begin with it, and which other columns it could name."""
    there = f"; it could name {', '.join(figures.metadata[:5])} as well" if figures.metadata else ""
    if figures.titles_repeated > ALL_REPEATED:
        text = template.rpartition(" ")[2]
        return Choice("data.item_text", text, f"{figures.titles_repeated:.0%} of the texts begin with their title{there}")
    return Choice("data.item_text", template, f"what an item's text is made of{there}")


def _names(url: str, own: dict[str, Any]) -> Iterator[Choice]:
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", url.rstrip("/").rpartition("/")[2]).strip("-._") or "run"
    yield Choice("name", words[:100], f"the run's folder is {str(own.get('output', 'runs')).rstrip('/')}/{words[:100]}")
    yield Choice("output", "runs", 'or "s3://bucket/runs"')


def _with_overrides(choices: list[Choice], own: dict[str, Any], keys: list[str]) -> list[Choice]:
    """The choices, with what the user said in their place; encoder.model goes with another kind that has none."""

    def value(key: str) -> Any:
        inner: Any = own
        for part in key.split("."):
            inner = inner[part]
        return inner

    said = {key: Choice(key, value(key), "as you said") for key in keys}
    if "encoder.kind" in said and "encoder.model" not in said and said["encoder.kind"].value in ("static", "vectors"):
        choices = [choice for choice in choices if choice.key != "encoder.model"]
    result = [said.pop(choice.key, choice) for choice in choices]
    return result + list(said.values())


def _head(address: str, figures: Figures, machine: Machine) -> list[str]:
    splits = ", ".join(f"{count:,} {split}" for split, count in figures.splits.items())
    return [
        f"Written by `hardmine init {address}` on a machine with {machine}.",
        f"{figures.items:,} items, {figures.queries:,} queries ({splits}), {figures.labels:,} labels: "
        f"{figures.relevant_per_query:.1f} relevant items a query, {figures.judged_irrelevant:,} judged irrelevant.",
        "`hardmine settings` explains every setting; what is not here has its default.",
    ]


def _checked(text: str, to: Path) -> Config:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"the words after DATA make no TOML ({one_paragraph(str(error))}); write them as section.key=value"
        ) from error
    return parse_config(values, source="the words after DATA", folder=to.absolute().parent)


def _nothing_to_train(figures: Figures, url: str) -> str:
    splits = ", ".join(f"{count:,} of {split}" for split, count in figures.with_positive.items() if split != "none")
    return (
        f"{url}: expected training queries with a relevant item, found labels for queries {splits or 'of no split'} only; add "
        f"labels of training queries (split train, or none). What trains on test queries cannot be measured on them"
    )


def _relative(url: str, to: Path) -> str:
    """An address as it stands in the file: from the file's folder if it lies below it."""
    folder = to.absolute().parent.resolve()
    if is_s3(url) or not Path(url).resolve().is_relative_to(folder):
        return url
    return Path(url).resolve().relative_to(folder).as_posix()


def show_init(console: Console, result: dict[str, Any]) -> None:
    """Print what was seen and written, for a person."""
    for warning in result["warnings"]:
        console.print(f"! {warning}", highlight=False, markup=False)
    lines = Path(result["config"]).read_text(encoding="utf-8").splitlines()
    console.print(f"{result['config']}, {len(lines)} lines:", highlight=False, markup=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print("next:", highlight=False)
    for command, what in zip(
        result["next"], ("what it would do; starts nothing", "is mining worth it? a short trial", "all rounds"), strict=True
    ):
        console.print(f"  {command:<44} # {what}", highlight=False, markup=False, soft_wrap=True)
