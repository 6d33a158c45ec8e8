"""Command-line jobs that run hardmine end to end, and the same in Python: `from jobs import load_run, run_config`.

Importing it loads neither Ray nor torch: each name is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # that of `typing` costs its import, before anything could answer Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from cluster.errors import ArtifactError, ClusterError, ConfigError, DataError, HardmineError, TrainingDiverged
    from jobs.config.config import Config, load_config
    from jobs.notebook.run import Run, load_run, run_config

    __version__: str

__all__ = [
    "ArtifactError",
    "ClusterError",
    "Config",
    "ConfigError",
    "DataError",
    "HardmineError",
    "Run",
    "TrainingDiverged",
    "__version__",
    "load_config",
    "load_run",
    "run_config",
]
_MODULES = {"Config": "jobs.config.config", "load_config": "jobs.config.config"} | dict.fromkeys(
    ("Run", "load_run", "run_config"), "jobs.notebook.run"
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from jobs.record.version import hardmine_version

        return hardmine_version()
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "cluster.errors")), name)


def __dir__() -> list[str]:
    return __all__
