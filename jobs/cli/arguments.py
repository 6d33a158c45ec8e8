"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="The run's TOML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings that override the file: section.key=value …")]
Takeover = Annotated[bool, typer.Option("--takeover", help="Take the run over from a writer that died.")]
RoundNumber = Annotated[int, typer.Option("--round", min=-1, help="Number of the round; 0 is the warm-up.")]
