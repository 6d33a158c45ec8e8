"""The entry point of `hardmine` and of `python -m jobs`: a Ctrl-C while the commands are still imported is one line, too."""

from __future__ import annotations


def main() -> None:
    """Run the command line; always ends with SystemExit."""
    try:
        from jobs.cli.app import main as run_command
    except KeyboardInterrupt:
        import os

        os.write(2, b"hardmine: stopped; nothing was started\n")
        raise SystemExit(130) from None
    run_command()


if __name__ == "__main__":
    main()
