"""What the commits of a run say: its models, what each was trained on, and its figures. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from cluster.commits import Commit, Ledger
from cluster.errors import ArtifactError
from cluster.storage.store import Store
from jobs.record.stages import Chosen, Kind, ModelName, Scope, Stage, parse_name

ArmName = Literal["baseline", "warm-up", "mined", "merged", "random"]
PURE = ("embed", "search", "train")
"""Kinds of work whose commits separate the work itself from start-up and commits."""


@dataclass(frozen=True)
class MeasuredModel:
    """A model whose figures are committed."""

    name: ModelName | Chosen
    """A `Chosen` is measured on the test split."""
    hits: Commit
    evaluation: Commit
    train: Commit | None = None
    mine: Commit | None = None
    report: Commit | None = None
    general: Commit | None = None
    """Its evaluation on the general set."""
    seconds: Mapping[str, float] | None = None
    """By kind of work, and "overhead" of all."""

    @property
    def figures(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        return self.evaluation.figures

    @property
    def round(self) -> int:
        """The model's round; −1: off the shelf."""
        return self.name.round if isinstance(self.name, ModelName) else int(self.figures["round"])

    @property
    def arm(self) -> ArmName:
        """What it was trained on."""
        if self.name in (Chosen.RANDOM_ARM,) or (isinstance(self.name, ModelName) and self.name.random):
            return "random"
        if self.round < 0:
            return "baseline"
        return "merged" if ModelName(self.round).share else "mined" if self.round else "warm-up"

    @property
    def label(self) -> str:
        """Its name for a person."""
        return ModelName(self.round, self.arm == "random").label

    @property
    def queries(self) -> int:
        """Evaluated queries."""
        return int(self.figures["queries"])

    @property
    def without_positive(self) -> int:
        """Evaluated queries that have no relevant item."""
        return int(self.figures["queries_without_positive"])

    @property
    def split(self) -> str:
        """Of the evaluated queries."""
        return str(self.figures["split"])

    @property
    def leakage(self) -> dict[str, Any]:
        """How much the metadata says of the labels; measured for the off-the-shelf model only."""
        return dict(self.figures.get("leakage") or {})

    @property
    def hit_rate(self) -> float | None:
        """Share of candidates that the filters left; None: nothing was mined for it."""
        return float(self.mine.figures["hit_rate"]) if self.mine else None

    @property
    def judged(self) -> tuple[int, int]:
        """(negatives that a person judged irrelevant, those of them that no list has); (0, 0): nothing was mined for it."""
        figures = self.mine.figures if self.mine else {}
        return int(figures.get("judged", 0)), int(figures.get("judged_left_out", 0))

    def change(self, other: Literal["baseline", "best", "previous"]) -> dict[str, Any]:
        """Comparison with another model by metric, and its verdict; {} where there is none."""
        return dict(self.figures.get(f"against_{other}") or {})

    @property
    def metrics(self) -> dict[str, float | None]:
        """Means over the evaluated queries."""
        return dict(self.figures["metrics"])

    @property
    def verdict(self) -> str | None:
        """Compared with the best earlier model; the random arm: with the last mined round; None: there is no earlier model."""
        best: dict[str, Any] = self.figures.get("against_best") or {}
        return best.get("verdict")


@dataclass(frozen=True)
class RunRecord:
    """The commits of a run by stage."""

    commits: Mapping[Stage, Commit]
    """All but those of vectors."""
    vectors: Sequence[Commit] = ()

    @classmethod
    def read(cls, store: Store) -> RunRecord:
        """The record of the run at `store`. Raises ArtifactError: a commit cannot be read."""
        return cls.of_commits(Ledger(store).all())

    @classmethod
    def of_commits(cls, commits: Sequence[Commit]) -> RunRecord:
        """The record of these commits, given oldest first."""
        stages = {stage: commit for commit in commits if (stage := parse_name(commit.name)) is not None}
        vectors = [commit for commit in commits if (stage := parse_name(commit.name)) and stage.kind is Kind.EMBED]
        return cls({stage: commit for stage, commit in stages.items() if stage.kind is not Kind.EMBED}, vectors)

    def find(self, kind: Kind, of: ModelName | Chosen | None = None, scope: Scope = Scope.RUN) -> Commit | None:
        """A stage's commit; None: there is none."""
        return self.commits.get(Stage(kind, of, scope))

    @property
    def all(self) -> list[Commit]:
        """Every commit, oldest first."""
        return sorted([*self.commits.values(), *self.vectors], key=lambda commit: commit.created)

    @property
    def finish(self) -> Commit | None:
        """The commit that ends the run; None: it is not finished, or continues with another configuration."""
        of_run = [commit for commit in self.all if (stage := parse_name(commit.name)) and stage.scope is not Scope.ALONE]
        return of_run[-1] if of_run and of_run[-1].name == Stage(Kind.FINISH).name else None

    @cached_property
    def models(self) -> list[MeasuredModel]:
        """Every model measured on dev: the off-the-shelf model, the rounds, the merged models, the random arm last."""
        names = {stage.of for stage in self.commits if stage.kind is Kind.EVALUATE and stage.scope is Scope.RUN}
        ordered = sorted((name for name in names if isinstance(name, ModelName)), key=lambda name: (name.random, name.round))
        return [model for name in ordered if (model := self.measured(name)) is not None]

    @property
    def baseline(self) -> MeasuredModel | None:
        """The off-the-shelf model."""
        return next((model for model in self.models if model.arm == "baseline"), None)

    @property
    def rounds(self) -> list[MeasuredModel]:
        """The warm-up and the mined rounds."""
        return [model for model in self.models if model.arm in ("warm-up", "mined")]

    @property
    def merged(self) -> list[MeasuredModel]:
        """The averages with the model that the run started from."""
        return [model for model in self.models if model.arm == "merged"]

    @property
    def random_arm(self) -> MeasuredModel | None:
        """The model trained on random negatives only, with as many steps as all mined rounds."""
        return next((model for model in reversed(self.models) if model.arm == "random"), None)

    @property
    def reranked(self) -> Commit | None:
        """The table of retrievers and re-rankers; None: there is none, or it is of an earlier configuration."""
        commit = self.find(Kind.RERANKED)
        known = {each.key for each in self.commits.values()}
        return commit if commit is not None and set(commit.inputs["hits"]) <= known else None

    @property
    def reranked_pair(self) -> MeasuredModel | None:
        """The best retriever with a re-ranker, as if it were a model; None: there is none."""
        commit = self.reranked
        return None if commit is None else MeasuredModel(ModelName(int(commit.figures["round"])), commit, commit)

    def best(self, primary: str) -> MeasuredModel | None:
        """The model with the highest primary figure, the earlier of equals. The random arm does not count."""
        candidates = [model for model in self.models if model.arm != "random"]
        return max(candidates, key=lambda model: (model.metrics.get(primary) or 0.0, -model.round), default=None)

    def measured(self, name: ModelName | Chosen) -> MeasuredModel | None:
        """A model with its commits; None: it is not measured, or its figures are of an earlier configuration.

        They are if its hits, or a model that it was compared with, have been replaced since.
        """
        evaluation, hits = self.find(Kind.EVALUATE, name), self.find(Kind.HITS, name)
        if evaluation is None or hits is None or evaluation.inputs["hits"] != hits.key:
            return None
        others = {evaluation.inputs.get(other) for other in ("baseline", "best", "previous")} - {None}
        if not others <= {commit.key for commit in self.commits.values()}:
            return None
        mined = isinstance(name, ModelName) and name.round > 0 and not name.random and not name.share
        return MeasuredModel(
            name,
            hits,
            evaluation,
            train=self.find(Kind.TRAIN, name),
            mine=self.find(Kind.MINE, name) if mined else None,
            report=self.find(Kind.REPORT, name) if mined else None,
            general=self._general(name, hits),
            seconds=self._seconds(name, hits),
        )

    def expect(self, name: ModelName | Chosen) -> MeasuredModel:
        """A model of a finished run. Raises ArtifactError: its commits are missing, or of another configuration."""
        model = self.measured(name)
        if model is None:
            stage = Stage(Kind.EVALUATE, name)
            raise ArtifactError(
                f"expected {stage.name} to measure the committed hits, found none that does: a run with another configuration "
                f"has begun here; let `hardmine run` finish, then try again"
            )
        return model

    def _general(self, name: ModelName | Chosen, hits: Commit) -> Commit | None:
        """The model's evaluation on the general set; None: there is none, or it is of an earlier model of this name."""
        evaluation = self.find(Kind.EVALUATE, name, Scope.GENERAL)
        general = self.find(Kind.HITS, name, Scope.GENERAL)
        if evaluation is None or general is None or evaluation.inputs["hits"] != general.key:
            return None
        model_of: dict[Any, str] = {vectors.key: vectors.inputs["model"] for vectors in self.vectors}
        same = model_of.get(hits.inputs.get("vectors")) == model_of.get(general.inputs.get("vectors"))
        return evaluation if same else None

    def _seconds(self, name: ModelName | Chosen, hits: Commit) -> dict[str, float]:
        work: dict[str, list[Commit]] = {kind: [] for kind in ("embed", "search", "mine", "train", "evaluate")}
        work["embed"] = [commit for commit in self.vectors if commit.key == hits.inputs["vectors"]][:1]
        for stage, commit in self.commits.items():
            if stage.of == name and stage.scope is Scope.RUN:
                work[stage.kind.work].append(commit)
        seconds = {
            kind: round(sum(commit.seconds["work" if kind in PURE else "wall"] for commit in commits), 2)
            for kind, commits in work.items()
        }
        overhead = sum(commit.seconds["overhead"] for kind in PURE for commit in work[kind])
        return seconds | {"overhead": round(overhead, 2)}
