"""Which hardmine this is; pyproject.toml says it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def hardmine_version() -> str:
    """The installed version; of a checkout that is not installed, "from a checkout"."""
    try:
        return version("hardmine")
    except PackageNotFoundError:
        return "from a checkout"
