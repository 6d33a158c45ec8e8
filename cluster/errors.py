"""Every error hardmine raises on purpose.

HardmineError
├── ConfigError        the user's settings are wrong                        exit 2
├── DataError          the user's corpus, queries or labels are wrong       exit 2
├── ArtifactError      something a run left behind is missing or damaged    exit 2
│   └── DamagedObject  one stored object; `hardmine run` makes it anew
├── TrainingDiverged   the loss is no longer a number                       exit 2
└── ClusterError       Ray, a worker or the storage failed after retries    exit 3
    ├── StorageError   the storage does not answer; a stage is tried again
    └── WorkersLost    training lost a rank; the stage is tried again

Each is built from one positional message, so that it comes back whole from a Ray worker. The message is one paragraph:
what was expected, what was found, what to do.
"""

from __future__ import annotations

import re

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What colours text on a terminal; Ray puts it into messages."""
EXIT_USER = 2
EXIT_CLUSTER = 3
EXIT_STOPPED = 130
"""Ctrl-C; what a shell returns for it."""


class HardmineError(Exception):
    """Base of all of them; `exit_code` is what the command line returns."""

    exit_code = EXIT_USER


class ConfigError(HardmineError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(HardmineError):
    """The corpus, the queries or the labels break the data contract; names file, row or id, and the count."""


class ArtifactError(HardmineError):
    """An object of a run is missing, damaged, or belongs to another configuration."""


class DamagedObject(ArtifactError):  # noqa: N818  what it is, named as messages say it
    """A stored object is missing, or is not what hardmine wrote there."""

    url: str = ""
    """Its full address; travels with the error, also from a Ray worker."""

    @classmethod
    def at(cls, url: str, message: str) -> DamagedObject:
        """The error for the object at `url`."""
        error = cls(message)
        error.url = url
        return error


class TrainingDiverged(HardmineError):  # noqa: N818  a state of the run, named as its users say it
    """The training loss became NaN or infinite; names the step."""


class ClusterError(HardmineError):
    """Ray, a worker, or the object storage failed, and retries did not help."""

    exit_code = EXIT_CLUSTER


class StorageError(ClusterError):
    """The object storage gave no good answer after its attempts: it may come back."""


class WorkersLost(ClusterError):  # noqa: N818  what happened, as messages say it
    """Training lost a worker or its node: other workers can go on from the last checkpoint."""


def unwrap(error: BaseException) -> BaseException:
    """The `HardmineError` inside `error`, however deep Ray wrapped it; `error` itself where there is none.

    Ray hands a worker's exception back as the `cause` of a RayTaskError, Ray Train as `worker_failures` of a
    TrainingFailedError, and Ray Data as a chained `__cause__`.
    """
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        candidate = pending.pop(0)
        if isinstance(candidate, HardmineError):
            # Ray raises a class that is both a RayTaskError and ours; its text is a traceback, its cause the original
            inner = getattr(candidate, "cause", None)
            if not isinstance(inner, HardmineError):
                return candidate
        if id(candidate) in seen:
            continue
        seen.add(id(candidate))
        nested = [getattr(candidate, "cause", None), candidate.__cause__, candidate.__context__]
        failures = getattr(candidate, "worker_failures", None)
        nested.extend(failures.values() if isinstance(failures, dict) else ())
        pending.extend(item for item in nested if isinstance(item, BaseException))
    return error


def root_cause(error: BaseException) -> BaseException:
    """The `HardmineError` inside `error`, or what a worker raised, without Ray's wrappings, whose texts are tracebacks."""
    from ray.exceptions import RayTaskError

    cause = unwrap(error)
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, Exception):
        cause = cause.cause
    return cause


def one_paragraph(text: str) -> str:
    """`text` with all line breaks folded, so that an error is one paragraph however it was built."""
    return " ".join(text.split())
