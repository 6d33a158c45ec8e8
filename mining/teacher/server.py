"""A teacher behind a /rerank address, as Cohere, Jina, text-embeddings-inference (TEI), vLLM and Infinity serve it.

    asked     {"model", "query", "documents"}            Cohere, Jina, Infinity, vLLM
              {"query", "texts", "truncate"}             TEI
    answered  {"results": [{"index", "relevance_score"}, …]}   Cohere, Jina, Infinity, vLLM; the order is the server's
              [{"index", "score"}, …]                          TEI

Scores are taken as the server sends them: most send a sigmoid, as our own cross-encoders give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from cluster.http import Client, Refused, Server
from cluster.tables.tables import F32, I64

KEY = "HARDMINE_TEACHER_KEY"
"""Environment variable with the key of a teacher's server."""
DOCUMENTS = 32
"""Of one request, which TEI takes unless it is started with another --max-client-batch-size. One that refuses so many (HTTP 413)
is sent half of them."""
FORMS = ("documents, cut", "documents", "texts")
"""How a request can be written, tried in this order: the first asks vLLM to cut texts that are too long, which others ignore."""
TRIAL = ("how to bake bread", ["flour, water, salt and yeast, in an oven", "a bicycle with three gears"])


def body_of(form: str, model: str, query: str, items: Sequence[str]) -> dict[str, Any]:
    """One request."""
    if form == "texts":
        return {"query": query, "texts": list(items), "truncate": True}
    cut = {"truncate_prompt_tokens": -1} if form == "documents, cut" else {}
    return {"model": model, "query": query, "documents": list(items)} | cut


def scores_of(answer: Any, count: int) -> F32:
    """[count] scores in the order of the items that were sent. Raises ValueError: the answer is another."""
    entries = answer.get("results") if isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise ValueError('has no list of scores: expected {"results": […]} or […]')
    scores = np.full(count, np.nan, np.float32)
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError("has an entry that is no object with index and score")
        index, score = entry.get("index"), entry.get("relevance_score", entry.get("score"))
        if not isinstance(index, int) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError("has an entry without an index and a score (relevance_score or score, a number)")
        if not 0 <= index < count or not math.isnan(scores[index]):
            raise ValueError(f"has the index {index} twice, or beyond the {count} items that were sent")
        scores[index] = score
    if len(entries) != count:
        raise ValueError(f"has {len(entries)} scores for {count} items")
    return scores


def find_form(server: Server, model: str) -> str:
    """How the server wants its requests, found by asking it for two short pairs.

    Raises:
        ConfigError: it wants none of the forms, or refuses the key, the address or the model. ClusterError: it does not answer.
    """
    refusals: list[str] = []
    with Client(server) as client:
        for form in FORMS:
            try:
                client.ask(body_of(form, model, *TRIAL), lambda answer: scores_of(answer, len(TRIAL[1])))
            except Refused as error:
                refusals.append(str(error))
            else:
                return form
    raise ConfigError(f"expected a server that answers /rerank as Cohere, TEI or vLLM do, found none: {refusals[0]}")


@dataclass(frozen=True)
class MakeReranker:
    """Makes the reader; called in the process that asks."""

    server: Server
    model: str
    form: str

    def __call__(self) -> RerankServer:
        """The reader."""
        return RerankServer(self)


class RerankServer:
    """Scores pairs by asking, query by query."""

    def __init__(self, how: MakeReranker) -> None:
        self._how = how

    def answers(self, queries: Sequence[str], items: Sequence[str]) -> Iterator[tuple[I64, F32]]:
        """(places among the pairs, their scores) of every request, as they are answered.

        Args:
            queries: the pairs of a query are best neighbours: up to DOCUMENTS of them are one request.
        """
        with Client(self._how.server) as client:
            for places, scores in client.over(_requests(queries), lambda places: self._ask(client, queries, items, places)):
                yield np.arange(places.start, places.stop), scores

    def _ask(self, client: Client, queries: Sequence[str], items: Sequence[str], places: range) -> F32:
        body = body_of(self._how.form, self._how.model, queries[places.start], items[places.start : places.stop])
        try:
            return client.ask(body, lambda answer: scores_of(answer, len(places)))
        except Refused as error:
            if error.status != 413 or len(places) == 1:
                raise
        middle = len(places) // 2
        halves = [self._ask(client, queries, items, half) for half in (places[:middle], places[middle:])]
        return np.concatenate(halves)


def _requests(queries: Sequence[str]) -> Iterator[range]:
    """Neighbours of one query, DOCUMENTS at most."""
    start = 0
    for place in range(1, len(queries) + 1):
        if place == len(queries) or queries[place] != queries[start] or place - start == DOCUMENTS:
            yield range(start, place)
            start = place
