"""From the name of a page to a file: `make_page`.

`coords`, `suffix` and `training` are there for every model; every other page is a function of the
model's `views.py`, found by its name, so that a new model brings its pages along with its folder.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from holo_cli.errors import UsageError, nearest
from holo_cli.paths import PAGES
from holo_cli.translation import translate

if TYPE_CHECKING:
    from holo_cli.inference.generation.loaded_model import LoadedModel
    from holo_cli.visualize.page import Page, Section

COMMON = {
    "coords": "where each layer puts each token, in three dimensions",
    "suffix": "what the suffix memory proposed at each token, and whether it came next",
    "training": "curves and samples of one or several runs",
}


FEW_NAMES = 2  # runs in a title; more of them would push the figure down


def views_of(model: str) -> ModuleType | None:
    """The `views.py` of a model; None for a model without one."""
    from holo_cli.registry import part

    return part(model, "views")


def pages_of(model: str) -> dict[str, str]:
    """The pages a model has, each with what it shows. Imports no torch."""
    return {**COMMON, **getattr(views_of(model), "PAGES", {})}


def known_pages() -> dict[str, str]:
    """Every page that any model has, each with what it shows. Imports no torch."""
    from holo_cli.registry import model_names

    return {page: shows for model in model_names() for page, shows in pages_of(model).items()}


def make_page(
    what: str,
    checkpoint: str | Path | None = None,
    text: str | None = None,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    runs: Sequence[str] = (),
    png: bool = False,
) -> dict[str, Any]:
    """Write one page. Returns {"page": path, "bytes": its size, "seconds": time taken}.

    `checkpoint`: a path, a run's name or None for the newest; `text`: what the model reads (None:
    a sentence per language it knows); `out`: the file (None: pages/RUN-WHAT.html). `training`
    reads the logs of `runs` instead, or where none are named, of the checkpoint's run. `png` also
    takes a picture, beside the page and named in the result as "png".
    Raises UsageError for a page that does not exist or that this model does not have, and for a
    picture where no browser is installed; then nothing is written.
    """
    begun = time.perf_counter()
    known = known_pages()
    if what not in known:
        raise UsageError(f"There is no page '{what}'.", next_step=nearest(what, known))
    if png:
        from holo_cli.visualize.browser import need_browser

        need_browser()
    if what == "training":
        name, page = _training(checkpoint, runs)
    else:
        name, page = _look(what, checkpoint, text, device)
    from holo_cli.visualize.page import write_page

    path = Path(out) if out is not None else PAGES / f"{name}-{what}.html"
    result: dict[str, Any] = {"page": path.as_posix(), "bytes": write_page(page, path)}
    if png:
        from holo_cli.visualize.browser import visit

        picture = path.with_suffix(".png")
        visit(path, png=picture)
        result["png"] = picture.as_posix()
    return result | {"seconds": time.perf_counter() - begun}


def _training(checkpoint: str | Path | None, runs: Sequence[str]) -> tuple[str, Page]:
    from holo_cli.checkpoint import find_checkpoint, read_header
    from holo_cli.models.views import Table
    from holo_cli.visualize.page import Section, story
    from holo_cli.visualize.runs import read_run
    from holo_cli.visualize.training import training_sections

    names = list(dict.fromkeys(runs))
    if not names:
        path = find_checkpoint(checkpoint)
        names = [read_header(path).run or path.stem]
    read = [read_run(name) for name in names]
    sections = training_sections(read)
    summaries = [(run.name, run.summary()) for run in read]
    if len(names) <= FEW_NAMES:
        title = f"Training of {', '.join(names)}"
        facts = [(f"Run {name}", summary) for name, summary in summaries]
    else:
        title, facts = f"Training of {len(names)} runs", []
        table = Table("", ["Run", "Model, data and best loss"], summaries)
        sections.append(Section("What the runs are", "", tables=[table], folded=True))
    page = story(title, [*facts, *_drawn()], sections)
    return _file_name("-".join(names[:3])), page


def _look(
    what: str, checkpoint: str | Path | None, text: str | None, device: str
) -> tuple[str, Page]:
    from holo_cli.checkpoint import find_checkpoint, read_header
    from holo_cli.checkpoint.rebuild import need_model
    from holo_cli.visualize.page import story

    path = find_checkpoint(checkpoint)
    header = read_header(path)
    need_model(path, header)
    model = header.model
    pages = pages_of(model)
    if what not in pages:
        raise UsageError(
            f"The model '{model}' of {path} has no page '{what}'.",
            next_step=f"It has: {', '.join(pages)}.",
        )
    from holo_cli.inference.generation.loaded_model import load

    loaded = load(path, device=device)
    loaded.model.eval()
    sections = _sections(what, loaded, text)
    name = loaded.header.run or path.stem
    return _file_name(name), story(
        f"{name}: {translate(pages[what])}", _facts(loaded, path), sections
    )


def _sections(what: str, loaded: LoadedModel, text: str | None) -> list[Section]:
    import torch

    from holo_cli.models.suffix_views import suffix
    from holo_cli.models.views import Weights, residual_stream
    from holo_cli.visualize import attention, coords
    from holo_cli.visualize.model_reading import read_text
    from holo_cli.visualize.page import picture_section
    from holo_cli.visualize.tokens import with_tokens

    views, model, layers = views_of(loaded.header.model), loaded.model, loaded.config.layers
    if what == "coords":
        reading = read_text(loaded, text, coords.most_tokens(layers + 1))
    else:
        wanted = getattr(views, "length", _no_length)(what, loaded.config)
        most = wanted or attention.most_tokens(layers * loaded.config.heads)
        reading = read_text(loaded, text, most, least=wanted, twice=what == "suffix")
    tokens = torch.tensor(reading.ids, device=model.device)
    with torch.inference_mode():
        if what == "coords":
            coordinates = getattr(views, "coordinates", residual_stream)
            return [coords.coords_section(coordinates(model, tokens), reading), reading.section()]
        shown = suffix(model, tokens) if what == "suffix" else getattr(views, what)(model, tokens)
    parts = [shown] if isinstance(shown, Weights) else shown
    first, *rest = (
        attention.attention_section(part, reading)
        if isinstance(part, Weights)
        else picture_section(with_tokens(part, reading.labels), True, reading.in_words)
        for part in parts
    )
    return [first, reading.section(), *rest]


def _no_length(what: str, config: Any) -> int:
    return 0


def _facts(loaded: LoadedModel, path: Path) -> list[tuple[str, str]]:
    header = loaded.header
    parameters = sum(p.numel() for p in loaded.model.parameters())
    recipe = header.config["model"].get("recipe")
    kind = f", {recipe} recipe" if recipe else ""
    losses = header.losses
    versions = {"holo": "holo", "torch": "torch", "python": "Python"}
    return [
        ("Model", f"{header.model}{kind}, {parameters:,} parameters"),
        ("Checkpoint", f"{path.as_posix()}, step {header.step:,}, {header.tokens:,} tokens"),
        (
            "Validation loss",
            "not measured" if losses.val is None else _loss(losses.val, losses.bpb),
        ),
        ("Trained on", header.data.title or "not recorded"),
        ("Saved", header.created.replace("T", " ").replace("+00:00", " UTC")),
        (
            "Saved with",
            ", ".join(f"{versions.get(k, k)} {v}" for k, v in sorted(header.versions.items())),
        ),
        *_drawn(),
    ]


def _loss(val: float, bpb: float | None) -> str:
    bits = "" if bpb is None else f", {bpb:.4f} bits per byte"
    return f"{val:.4f} nats per token{bits}"


def _drawn() -> list[tuple[str, str]]:
    import holo_cli

    return [("Drawn", f"{date.today().isoformat()} with holo {holo_cli.__version__}")]


def _file_name(run: str) -> str:
    """A run's name comes from a file that anybody may have made: keep it inside the folder."""
    return re.sub(r"[^\w.-]", "_", run).lstrip(".") or "page"
