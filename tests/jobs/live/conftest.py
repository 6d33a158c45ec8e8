"""The exports of tests/jobs/serve."""

from tests.jobs.serve.conftest import shop

__all__ = ["shop"]
