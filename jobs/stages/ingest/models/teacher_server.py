"""A teacher that a server has: asked once, before anything is embedded, so that a wrong address or key shows at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster.commits import Outcome, digest
from cluster.http import Server
from mining.settings import TeacherSettings
from mining.teacher.server import KEY, find_form

FIRST_ATTEMPTS = 3
"""Of the first request: a server that is not there is told in seconds."""


def server_of(settings: TeacherSettings) -> Server:
    """Where its requests go."""
    assert settings.url is not None
    return Server(settings.url, "mining.teacher.url", KEY, at_once=settings.requests)


def server_name(settings: TeacherSettings) -> dict[str, Any]:
    """What a server's model is known by: what it answered is kept as long as this stays the same."""
    return settings.model_dump(include={"kind", "model", "url"})


def ask_server(settings: TeacherSettings) -> Outcome:
    """How the server wants its requests.

    Raises:
        ConfigError: it refuses them. ClusterError: it does not answer.
    """
    server = replace(server_of(settings), attempts=FIRST_ATTEMPTS)
    return Outcome(figures={"digest": digest(server_name(settings)), "form": find_form(server, settings.model)})
