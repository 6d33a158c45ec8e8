"""A teacher that a server has: asked before anything is embedded, so that a wrong address, key or judge shows at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster.commits import Commit, Outcome, digest
from cluster.http import Server
from cluster.storage.store import Store
from mining.settings import TeacherSettings
from mining.teacher import judge, server
from mining.teacher.agreement import Known, measure_agreement
from mining.teacher.judge import MakeJudge
from mining.teacher.server import KEY, MakeReranker

FIRST_ATTEMPTS = 3
"""Of the first request: a server that is not there is told in seconds."""


def server_of(settings: TeacherSettings) -> Server:
    """Where its requests go."""
    assert settings.url is not None
    return Server(settings.url, "mining.teacher.url", KEY, at_once=settings.requests)


def server_name(settings: TeacherSettings) -> dict[str, Any]:
    """What a server's model is known by: what it answered is kept as long as this stays the same."""
    return settings.model_dump(include={"kind", "model", "url"}) | (
        {"rubric": rubric_of(settings)} if settings.kind == "llm" else {}
    )


def _name(settings: TeacherSettings) -> str:
    """By which the server knows its model."""
    assert settings.model is not None
    return settings.model


def rubric_of(settings: TeacherSettings) -> str:
    """What its grades mean."""
    return settings.rubric or judge.RUBRIC


def known_to(settings: TeacherSettings, store: Store, tables: Commit, seed: int) -> Known | None:
    """What a judge is checked against; None: it is no judge."""
    if settings.kind != "llm":
        return None
    queries, corpus, labels, codes = (tables.parts(name) for name in ("queries", "corpus", "labels", "codes"))
    return Known(store, queries, corpus, labels, codes, seed)


def ask_server(settings: TeacherSettings, known: Known | None) -> Outcome:
    """How the server wants its requests; of a judge also whether it agrees with what is known.

    Raises:
        ConfigError: it refuses them, or agrees too little. ClusterError: it does not answer.
    """
    first = replace(server_of(settings), attempts=FIRST_ATTEMPTS)
    figures = {"digest": digest(server_name(settings))}
    if known is None:
        return Outcome(figures=figures | {"form": server.find_form(first, _name(settings))})
    form = judge.find_form(first, _name(settings), rubric_of(settings))
    agreement = measure_agreement(known, MakeJudge(server_of(settings), _name(settings), form, rubric_of(settings)))
    return Outcome(figures=figures | {"form": form, "agreement": agreement.to_json()})


def make_asking(settings: TeacherSettings, form: str) -> MakeReranker | MakeJudge:
    """What makes the teacher in the process that reads."""
    if settings.kind == "http":
        return MakeReranker(server_of(settings), _name(settings), form)
    return MakeJudge(server_of(settings), _name(settings), form, rubric_of(settings))
