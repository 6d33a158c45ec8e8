"""Which hardmine this is, as pyproject.toml says it, and which versions of others it works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def hardmine_version() -> str:
    """The installed version; of a checkout that is not installed, "from a checkout"."""
    try:
        return version("hardmine")
    except PackageNotFoundError:
        return "from a checkout"


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """hardmine's version and those of installed packages."""
    return {"hardmine": hardmine_version()} | {name: version(name) for name in packages}
