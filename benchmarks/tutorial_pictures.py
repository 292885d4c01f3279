"""The pictures of the tutorials: pages of `holo visualize`, drawn by a browser, with fewer colours.

Run it where the runs of the tutorials are (the folder with `checkpoints/`), with a browser
installed: `python -m benchmarks.tutorial_pictures --out docs/images`; `--only NAME` draws one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from holo_cli.visualize import make_page
from holo_cli.visualize.browser import visit

TEXT = "One day, a fox ran to the river."
MAX_BYTES = 60_000
TOP = 455  # pixels of the page's head, which are cut off
# picture: page, run, size of the window in CSS pixels
PICTURES = {
    "tutorial-gpt": ("attention", "gpt-l", (900, 1420)),
    "tutorial-hologram": ("interference", "hologram", (900, 1420)),
    "tutorial-mass": ("gravity", "mass", (900, 1090)),
    "tutorial-cortex": ("columns", "cortex", (900, 1250)),
}


def draw(name: str, out: Path) -> int:
    """Save one picture as `out`/NAME.png with as many colours as MAX_BYTES allow; its bytes."""
    what, run, size = PICTURES[name]
    target = out / f"{name}.png"
    with tempfile.TemporaryDirectory() as folder:
        page, full = Path(folder) / "page.html", Path(folder) / "full.png"
        make_page(what, run, text=TEXT, out=str(page))
        visit(page, png=full, size=size)
        with Image.open(full) as picture:
            rgb = picture.convert("RGB").crop((0, TOP, *size))
    for colours in (256, 128, 64, 32, 16):
        rgb.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= MAX_BYTES:
            break
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", choices=sorted(PICTURES))
    options = parser.parse_args()
    for name in [options.only] if options.only else PICTURES:
        print(f"{name}.png  {draw(name, options.out):,} bytes")


if __name__ == "__main__":
    main()
