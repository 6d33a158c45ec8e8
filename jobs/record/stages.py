"""Names of stages: what a stage does, for which model, on which data. Only this module knows how commits are named."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import get_args

from mining.settings import SourceKind


class Kind(Enum):
    """What a stage does: (last part of its name, its folder, the kind of work it counts as)."""

    INGEST = ("ingest", "tables", "prepare")
    BASE = ("base", "base", "prepare")
    TOKENS = ("tokens", "tokens", "prepare")
    SEQUENCE = ("sequence", "sequence", "prepare")
    MODEL = ("", "", "prepare")
    """A second model, named after its purpose: teacher, guide or re-ranker."""
    EMBED = ("embed", "embeddings", "embed")
    SEARCH = ("search", "hits-train", "search")
    SOURCE = ("", "", "search")
    """Candidates of one of mining.sources that is a search of its own, named after it."""
    PAIRS = ("pairs", "pairs", "search")
    SCORE = ("score", "score", "search")
    NEAR = ("near-duplicates", "near-duplicates", "mine")
    TEACHER_PAIRS = ("teacher-pairs", "teacher-pairs", "mine")
    TEACHER_SCORES = ("teacher", "teacher", "mine")
    MINE = ("mine", "mine", "mine")
    REPORT = ("report", "report", "mine")
    TRAIN = ("train", "train", "train")
    MERGE = ("merge", "merge", "train")
    """An average of a round's model and the one that the run started from."""
    HITS = ("hits", "hits", "search")
    EVENTS = ("events", "events", "evaluate")
    EVALUATE = ("evaluate", "evaluate", "evaluate")
    TRAIN_RERANKER = ("reranker-train", "reranker/train", "train")
    RERANKER_PAIRS = ("reranker-pairs", "reranker/pairs", "evaluate")
    RERANK = ("rerank", "scores", "evaluate")
    RERANKED = ("reranked", "reranker/table", "evaluate")
    FINISH = ("finish", "model", "prepare")

    def __init__(self, ending: str, folder: str, work: str) -> None:
        self.ending, self.folder, self.work = ending, folder, work


MERGED = 100
"""The round of a merged model is this plus its percentage: behind every round that can be trained, and the same in every run."""


@dataclass(frozen=True, order=True)
class ModelName:
    """A model of the run."""

    round: int
    """0: the warm-up; −1: the off-the-shelf model; 101 to 199: a merged model."""
    random: bool = False
    """Whether it is of the arm that trains on random negatives only."""

    def __str__(self) -> str:
        if self.share:
            return f"merged-{self.share:02d}"
        return "baseline" if self.round < 0 else f"round-{self.round:02d}{'-random' if self.random else ''}"

    @property
    def share(self) -> int:
        """Of a merged model: how many percent of it are the trained model; 0: it is no merged model."""
        return max(0, self.round - MERGED)

    @property
    def label(self) -> str:
        """Its name for a person."""
        if self.random:
            return "random only"
        if self.share:
            return f"merged {self.share} %"
        return {-1: "off the shelf", 0: "warm-up"}.get(self.round, f"round {self.round}")

    @property
    def source(self) -> Stage:
        """The stage that leaves its weights."""
        return Stage(Kind.MERGE if self.share else Kind.TRAIN, self)

    @property
    def folder(self) -> str:
        """The folder of its stages."""
        return "baseline" if self.round < 0 else f"rounds/{str(self).removeprefix('round-')}"


BASELINE = ModelName(-1)
"""The off-the-shelf model."""


class Second(StrEnum):
    """A model besides the run's own."""

    TEACHER = "teacher"
    GUIDE = "guide"
    RERANKER = "reranker"
    """As it comes; a copy of it is trained."""


@dataclass(frozen=True)
class SourceName:
    """One of mining.sources that is a search of its own."""

    kind: SourceKind

    def __str__(self) -> str:
        return self.kind


class Chosen(StrEnum):
    """A model that the dev split chose, measured once on the test split."""

    BASELINE = "baseline"
    BEST = "best"
    RANDOM_ARM = "random_arm"


class Reranker(StrEnum):
    """A re-ranker that is measured."""

    OFF_THE_SHELF = "off-the-shelf"
    FINE_TUNED = "fine-tuned"


class Scope(StrEnum):
    """Which data a stage is about."""

    RUN = ""
    GENERAL = "general"
    """The general set, which nothing is trained on."""
    MIX = "mix"
    """The data set that is mixed into training."""
    ALONE = "mine"
    """`hardmine mine` without a round, which trains nothing."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    kind: Kind
    of: ModelName | Second | SourceName | Chosen | Reranker | None = None
    """The model that it measures, mines for or trains; None: the stage belongs to the whole run."""
    scope: Scope = Scope.RUN

    @property
    def name(self) -> str:
        """How its commit is called; an embedding's is named after its content (`embedding_name`)."""
        if self.scope is Scope.ALONE and self.kind is Kind.MINE:
            return str(self.scope)
        return "-".join(part for part in (self.about, self.kind.ending) if part)

    @property
    def about(self) -> str:
        """Its name without what it does: "round-01", "general-baseline", "test-best"; "" for the whole run's."""
        first = "test" if isinstance(self.of, Chosen) else str(self.scope)
        return "-".join(part for part in (first, str(self.of or "")) if part)

    @property
    def root(self) -> str:
        """The folder of its model, "rounds/01"; "" if it belongs to the whole run."""
        if self.scope is Scope.GENERAL and self.of is not None:
            return f"general/{self.of}"
        if self.scope is Scope.ALONE:
            return "mine"
        if isinstance(self.of, Chosen):
            return f"test/{self.of}"
        if isinstance(self.of, Reranker):
            return f"reranker/{self.of}"
        return self.of.folder if isinstance(self.of, ModelName) else ""

    @property
    def folder(self) -> str:
        """The folder of the stage itself."""
        if self.kind in (Kind.MODEL, Kind.SOURCE):
            return str(self.of)
        if self.kind is Kind.EVENTS:
            return f"events/{self.about}"
        ending = self.kind.folder
        if self.kind is Kind.HITS and self.scope is not Scope.GENERAL:
            ending = f"{ending}-{self.split}"
        elif self.kind is Kind.SEARCH and self.scope is Scope.ALONE:
            ending = "hits"
        return f"{self.root}/{ending}" if self.root and self.kind not in SHARED else ending

    @property
    def split(self) -> str:
        """The split whose queries its hits and figures are of: dev, test or general."""
        return "general" if self.scope is Scope.GENERAL else "test" if isinstance(self.of, Chosen) else "dev"

    @property
    def optional(self) -> bool:
        """Whether training and mining do without it: the general set, events, the models of the teacher and the re-ranker."""
        beside = self.of in (Second.TEACHER, Second.RERANKER)
        return self.scope is Scope.GENERAL or self.kind is Kind.EVENTS or beside

    def sibling(self, kind: Kind) -> Stage:
        """Another stage of the same model on the same data."""
        return replace(self, kind=kind)


SHARED = frozenset({Kind.INGEST, Kind.TOKENS, Kind.NEAR, Kind.EMBED})
"""Kinds whose folders belong to the whole run."""
NAME = re.compile(
    r"(?:(general|mix|mine)-)?(?:test-(baseline|best|random_arm)-|(baseline|round-(\d+)(-random)?|merged-(\d\d))-)?(.*)"
)
OTHER_SEARCHES = tuple(SourceName(kind) for kind in get_args(SourceKind) if kind not in ("model", "baseline", "earlier"))
ENDINGS = {kind.ending: kind for kind in Kind if kind.ending}
FIXED = {
    stage.name: stage
    for stage in (
        Stage(Kind.MINE, scope=Scope.ALONE),
        *(Stage(kind, second) for second in Second for kind in (Kind.MODEL, Kind.TOKENS)),
        *(Stage(Kind.RERANK, reranker) for reranker in Reranker),
        *(Stage(Kind.SOURCE, source, scope) for source in OTHER_SEARCHES for scope in (Scope.RUN, Scope.ALONE)),
    )
}
"""Names that the pattern would misread."""


EMBEDDING = "embed-"
"""How the names of commits of vectors start."""


def embedding_name(digest: str) -> str:
    """The name of a commit of vectors: a digest of all that they depend on, so that no model embeds the same data twice."""
    return f"{EMBEDDING}{digest[:12]}"


def parse_name(name: str) -> Stage | None:
    """The stage with this commit name; None: there is none."""
    if name.startswith(EMBEDDING):
        return Stage(Kind.EMBED)
    if name in FIXED:
        return FIXED[name]
    scope, chosen, model, number, random, share, ending = NAME.fullmatch(name).groups()  # type: ignore[union-attr]  # any text fits
    of: ModelName | Chosen | None = Chosen(chosen) if chosen else None
    if model:
        of = ModelName(MERGED + int(share)) if share else ModelName(int(number), bool(random)) if number else BASELINE
    return Stage(ENDINGS[ending], of, Scope(scope or "")) if ending in ENDINGS else None
