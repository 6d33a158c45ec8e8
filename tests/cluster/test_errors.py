"""Our errors are found however deep Ray wrapped them, with the message they were raised with."""

from __future__ import annotations

import pickle

import pytest

from cluster.errors import (
    EXIT_CLUSTER,
    EXIT_USER,
    ArtifactError,
    ClusterError,
    ConfigError,
    DataError,
    HardmineError,
    TrainingDiverged,
    one_paragraph,
    unwrap,
)
from cluster.session.resources import ClusterSize

MESSAGE = "expected 3 rows, found 2; add one"


class WrapperError(Exception):
    """Like Ray's: the original is an attribute."""

    def __init__(self, cause: BaseException | None = None, failures: dict[int, BaseException] | None = None) -> None:
        super().__init__("wrapped")
        self.cause = cause
        self.worker_failures = failures


class DualError(WrapperError, DataError):
    """Like what Ray makes of a worker's DataError."""


def chained(error: BaseException, *, explicit: bool) -> BaseException:
    try:
        try:
            raise error
        except BaseException as inner:
            if explicit:
                raise RuntimeError("outer") from inner
            raise RuntimeError("outer")  # noqa: B904
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("kind", [ConfigError, DataError, ArtifactError, ClusterError, TrainingDiverged])
def test_every_error_survives_pickling_and_has_an_exit_code(kind: type[HardmineError]) -> None:
    copy = pickle.loads(pickle.dumps(kind(MESSAGE)))
    assert (type(copy), str(copy)) == (kind, MESSAGE)
    assert kind.exit_code == (EXIT_CLUSTER if kind is ClusterError else EXIT_USER)


def test_unwrap_finds_our_error_at_any_depth() -> None:
    want = DataError(MESSAGE)
    wrapped = WrapperError(want)
    for error in (
        want,
        wrapped,
        WrapperError(wrapped),
        WrapperError(failures={1: OSError(), 2: wrapped}),
        chained(want, explicit=True),
        chained(want, explicit=False),
        WrapperError(chained(want, explicit=True)),
        DualError(want),
        DualError(DualError(want)),
        WrapperError(DualError(want)),
    ):
        assert unwrap(error) is want


def test_unwrap_gives_back_what_holds_none_of_ours_even_in_a_circle() -> None:
    first, second = WrapperError(), WrapperError()
    first.cause, second.cause = second, first
    assert unwrap(first) is first
    assert unwrap(KeyboardInterrupt()).__class__ is KeyboardInterrupt


def test_one_paragraph_has_no_line_breaks() -> None:
    assert one_paragraph(" a\n  b\r\n\tc ") == "a b c"


@pytest.mark.cluster
def test_an_error_comes_back_whole_through_nested_ray_tasks(ray_local: ClusterSize) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise DataError(MESSAGE)

    @ray.remote(num_cpus=0)
    def ask() -> None:
        ray.get(fail.remote())

    for reference in (fail.remote(), ask.remote()):
        with pytest.raises(DataError) as error:
            ray.get(reference)
        got = unwrap(error.value)
        assert (type(got), str(got)) == (DataError, MESSAGE)
