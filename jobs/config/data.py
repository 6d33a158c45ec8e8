"""What a person sets about data: the run's own, and a general set beside it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.config.templates import check_template

SOURCES = ("corpus", "queries", "qrels", "folder")


class DatasetSettings(BaseModel):
    """Where queries, items and labels are, and how they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    corpus: str | None = None
    """Items: a file or folder of Parquet, JSONL, CSV or TSV (the last three perhaps as .gz), local or s3://."""
    queries: str | None = None
    """Queries, in the same formats."""
    qrels: str | None = None
    """Labels, in the same formats, or as BEIR (query, item, score) or TREC (query, 0, item, score) write them. In a folder, files
    named after splits (train.tsv, test-00000.parquet) hold the labels of that split."""
    folder: str | None = None
    """Instead of the three: a folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv)."""
    relevant_from: Annotated[float, Field(gt=0.0)] | None = None
    """Lowest score of a label that is relevant. Set 2 where 1 means "not relevant". What is below counts as judged irrelevant,
    and keeps its score as gain in NDCG only. Default: every score above 0, and scores are whole numbers."""
    columns: dict[str, str] = {}
    """Our column name -> the name it has in the data, e.g. { group = "franchise" }."""
    item_text: str = "{title} {text}"
    """Template of an item's text over corpus columns; what is missing vanishes with the words before it."""
    query_text: str = "{text}"
    """Template of a query's text over query columns."""

    @property
    def section(self) -> str:
        """Its name in the file."""
        return "data"

    @property
    def needed_splits(self) -> tuple[str, ...]:
        """Splits whose file a folder in BEIR layout must have."""
        return ("train",)

    @property
    def splits(self) -> tuple[str, ...]:
        """What its queries are for."""
        return ("train", "dev", "test")

    @model_validator(mode="after")
    def _source_is_complete(self) -> DatasetSettings:
        section = self.section
        tables = {"corpus": self.corpus, "queries": self.queries, "qrels": self.qrels}
        given = [name for name, value in tables.items() if value]
        if self.folder and given:
            raise ValueError(
                f"{section}.folder and {section}.{given[0]} are both set; give either a BEIR folder or the three tables, not both"
            )
        if not self.folder and len(given) < 3:
            missing = [f"{section}.{name}" for name in tables if name not in given]
            raise ValueError(
                f"{', '.join(missing)} not set: give corpus, queries and qrels, or {section}.folder for a folder in BEIR layout"
            )
        for name in ("item_text", "query_text"):
            check_template(getattr(self, name), f"{section}.{name}")
        return self


class MixSettings(DatasetSettings):
    """A second data set, mixed into training against forgetting: every labelled query of its train split, or every one where it
    has no splits. Its random negatives are from its own corpus, and no step has examples of both sets."""

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the micro-steps of every training that are of this set."""

    @property
    def section(self) -> str:
        """Its name in the file."""
        return "data.mix"

    @property
    def splits(self) -> tuple[str, ...]:
        """Its queries are for nothing else."""
        return ("train",)


class DataSettings(DatasetSettings):
    """Where the queries, items and labels are."""

    dev_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the training queries that become the dev split where the data has none."""
    train_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the training queries that are used, drawn by id. Dev and test queries are all used."""
    skip_queries_without_positive: bool = False
    """Leave out training queries without a relevant item, and print how many. false: such data is refused."""
    mix: MixSettings | None = None
    """A second data set that is mixed into training: corpus, queries and qrels, or folder, as in [data]. [evaluation.general]
    shows what it is worth. Default: none."""


class GeneralSettings(DatasetSettings):
    """A second data set that is measured after each round and never trained on; every labelled query counts."""

    @property
    def section(self) -> str:
        """Its name in the file."""
        return "evaluation.general"

    @property
    def needed_splits(self) -> tuple[str, ...]:
        """None: whichever are there are measured."""
        return ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Its queries are for nothing else."""
        return ("general",)
