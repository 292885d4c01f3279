"""The pictures of the documentation: first screens of `holo visualize` pages, with fewer colours.

    holo prepare stories --max-bytes 6000000 --vocab-size 2048
    python -m benchmarks.page_pictures --commands       # the commands that train the runs
    python -m benchmarks.page_pictures --out docs/images      # --only NAME draws one

Run it in the folder with the `checkpoints/` of these runs and of the tutorials, whose pages give
their commands, with a browser installed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from holo_cli.visualize import make_page
from holo_cli.visualize.browser import visit

SENTENCE = "One day, a fox ran to the river."  # of the tutorials
MAX_BYTES = 60_000
SIZE = (1000, 740)  # of the window in CSS pixels: the sentence, the first figure and its legend
SHAPE = "--context 64 --set model.layers=4 --set model.heads=4"
RUNS = {  # how each was trained; `demo-vanilla` is the run of `holo demo`
    "ngt-pages": "--model ngt --steps 250 --batch-size 12 --set model.width=96",
    "brain-v1-pages": "--model brain-v1 --steps 400 --batch-size 16 --set model.width=96",
    "holographic-pages": "--model holographic --steps 150 --batch-size 8 --set model.width=64 "
    "--set model.experts=3",
    "brain-v2-pages": "--model brain-v2 --steps 150 --batch-size 8 --set model.width=64",
    "vanilla-pages": "--model vanilla --steps 150 --batch-size 8 --set model.width=64",
}
# picture: page, run, what the model reads (None: a sentence per language)
PICTURES = {
    "gravity": ("gravity", "ngt-pages", None),
    "columns": ("columns", "brain-v1-pages", None),
    "depth": ("depth", "brain-v1-pages", None),
    "interference": ("interference", "holographic-pages", None),
    "experts": ("experts", "holographic-pages", None),
    "memory": ("memory", "brain-v2-pages", None),
    "attention": ("attention", "vanilla-pages", None),
    "coords": ("coords", "demo-vanilla", None),
    "tutorial-gpt": ("attention", "gpt-l", SENTENCE),
    "tutorial-hologram": ("interference", "hologram", SENTENCE),
    "tutorial-mass": ("gravity", "mass", SENTENCE),
    "tutorial-cortex": ("columns", "cortex", SENTENCE),
}


def draw(name: str, out: Path) -> int:
    """Save one picture as `out`/NAME.png with as many colours as MAX_BYTES allow; its bytes."""
    what, run, text = PICTURES[name]
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}.png"
    with tempfile.TemporaryDirectory() as folder:
        page, full = Path(folder) / "page.html", Path(folder) / "full.png"
        make_page(what, run, text=text, out=str(page))
        visit(page, png=full, size=SIZE)
        with Image.open(full) as picture:
            rgb = picture.convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        rgb.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= MAX_BYTES:
            break
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", choices=sorted(PICTURES), action="append")
    parser.add_argument("--commands", action="store_true")
    options = parser.parse_args()
    if options.commands:
        for run, settings in RUNS.items():
            print(f"holo train {settings} {SHAPE} --data stories --run {run}")
        return
    for name in options.only or PICTURES:
        print(f"{name}.png  {draw(name, options.out):,} bytes", flush=True)


if __name__ == "__main__":
    main()
