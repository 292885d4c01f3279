"""Where holo keeps things: in the current folder, and in the user's own folder."""

from __future__ import annotations

from pathlib import Path

# relative: each working folder has its own
CHECKPOINTS = Path("checkpoints")
DATA = Path("data")  # prepared sets
RUNS = Path("runs")  # metrics
BENCH = Path("bench")
PAGES = Path("pages")


def user_folder() -> Path:
    """The system's folder for settings of this program, such as ~/.config/holo on Linux."""
    import typer

    return Path(typer.get_app_dir("holo"))


def chat_history() -> Path:
    """The lines typed in earlier chats."""
    return user_folder() / "chat_history"


def machine_file() -> Path:
    """Measurements of this machine that later processes use."""
    return user_folder() / "machine.json"
