"""The folder that `hardmine submit` uploads: the code of the five packages and the resolved configuration, and no key."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from cluster.errors import ConfigError
from jobs.config.config import Config
from jobs.config.toml import to_toml
from jobs.record.origin import DEEPSPEED, SUBMITTED, as_submitted, write_submitted

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cluster", "eval", "jobs", "mining", "training")
SHIPPED = frozenset({".py", ".html", ".css", ".js", ".svg"})
"""Endings of the uploaded files: code, and the parts of a report. No format that holds data or keys."""
SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}\b")
"""What private keys, AWS keys and hub tokens look like, wherever they are written."""
MAX_BYTES = 100 * 2**20
"""The most that Ray's dashboard accepts in one upload (ray#55877)."""
CONFIG_NAME = "job.toml"


def stage_job(config: Config, folder: Path, *, address: str, root: Path = ROOT) -> None:
    """Fill the empty `folder` with what the job needs: the files of the packages and the resolved config.

    Args:
        address: of the dashboard that it is sent to, which the job's proposals name.

    Raises:
        ConfigError: they are more than a cluster accepts, or one holds a key.
    """
    for package in PACKAGES:
        for source in sorted((root / package).rglob("*")):
            inside = source.relative_to(root)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if source.suffix in SHIPPED and not hidden and not source.is_symlink():
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / inside)
    if config.training.deepspeed:
        shutil.copyfile(config.training.deepspeed, folder / DEEPSPEED)
    (folder / CONFIG_NAME).write_text(to_toml(as_submitted(config)), encoding="utf-8")
    write_submitted(folder, config, address)
    _refuse_secrets(folder)
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if sum(sizes.values()) >= MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path]).relative_to(folder)
        raise ConfigError(
            f"the job's folder is {sum(sizes.values()) / 2**20:.0f} MiB, and a cluster accepts less than "
            f"{MAX_BYTES / 2**20:.0f}; the largest file is {largest}: move it out of the packages"
        )


def _refuse_secrets(folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        match = SECRET.search(path.read_bytes())
        if match:
            name, start = path.relative_to(folder), match[0][:12].decode()
            where = {
                CONFIG_NAME: "the configuration",
                SUBMITTED: "the command line",
                DEEPSPEED: "the file of training.deepspeed",
            }.get(str(name), str(name))
            raise ConfigError(
                f"{where} holds what looks like a private key or an access key ({start}…), and everyone who reaches the cluster "
                f"could read it; take it out. The nodes use keys of their own (instance role, service account, or Secret)"
            )
