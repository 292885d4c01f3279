"""Shell completion of models, presets, recipes, prepared sets, sources and runs.

Completion runs at every press of Tab, so these functions read names from the disk or the registry
and import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable

import typer

from holo_cli.paths import DATA


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    from holo_cli.registry import model_names

    return _starting(model_names(), incomplete)


def presets(ctx: typer.Context, incomplete: str) -> list[str]:
    """The presets of the --model typed before, or those of every model."""
    from holo_cli.registry import model_names, preset_names

    typed = str(ctx.params.get("model") or "").replace("_", "-")
    names = [typed] if typed in model_names() else model_names()
    found = dict.fromkeys(preset for name in names for preset in preset_names(name))
    return _starting(found, incomplete)


def recipes(incomplete: str) -> list[str]:
    from holo_cli.registry import configs_folder

    names = sorted(path.stem for path in (configs_folder() / "recipes").glob("*.toml"))
    return _starting(names, incomplete)


def prepared(incomplete: str) -> list[str]:
    """Prepared sets under data/: folders with a meta.json."""
    return _starting(sorted(p.parent.name for p in DATA.glob("*/meta.json")), incomplete)


def sources(incomplete: str) -> list[str]:
    from holo_cli.data.sources import source_names

    return _starting(source_names(), incomplete)


def runs(incomplete: str) -> list[str]:
    from holo_cli.checkpoint.find import known_runs

    return _starting(known_runs(), incomplete)
