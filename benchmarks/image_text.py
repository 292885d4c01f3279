"""Small images as text, one character a pixel, for `holo prepare`: does binding in two dimensions
help where the data has two?

    python -m benchmarks.image_text patterns --out images/patterns.jsonl
    python -m benchmarks.image_text digits --out images/digits.jsonl      # needs scikit-learn
    holo prepare patterns --source images/patterns.jsonl --tokenizer char
    holo bench compare --preset images --data patterns --out bench/images-patterns.html

`patterns`: a tile of 3 to 5 by 3 to 5 pixels in four colours repeats over 12 x 12 pixels, shifted
at random, one pixel in fifty replaced by a random one. What comes next can be read a few pixels to
the left and a few rows of 12 above, at distances that differ from image to image. `digits`: the
1,797 handwritten digits of scikit-learn (8 x 8 pixels, 17 levels; Alpaydin and Kaynak, 1998). Every
image is a document; rows follow one another without a mark between them.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

from holo_cli.errors import UsageError
from holo_cli.files import atomic_write_text

SIDE, COLOURS, NOISE = 12, "abcd", 0.02
TILES = range(3, 6)  # pixels of a tile's side
IMAGES = 4000


def pattern(rng: random.Random) -> str:
    """A repeated tile as SIDE x SIDE characters, row by row."""
    height, width = rng.choice(TILES), rng.choice(TILES)
    tile = [[rng.choice(COLOURS) for _ in range(width)] for _ in range(height)]
    down, right = rng.randrange(height), rng.randrange(width)
    pixels = (
        tile[(row + down) % height][(column + right) % width]
        for row in range(SIDE)
        for column in range(SIDE)
    )
    return "".join(rng.choice(COLOURS) if rng.random() < NOISE else pixel for pixel in pixels)


def patterns(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(IMAGES):
        yield pattern(rng)


def digits() -> Iterator[str]:
    """Raises UsageError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "The digits come with scikit-learn, which is not installed.",
            next_step="pip install scikit-learn, or make `patterns`.",
        ) from None
    for image in load_digits().images:
        yield "".join(string.ascii_letters[int(level)] for level in image.flatten())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("patterns", "digits"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    images = patterns(options.seed) if options.kind == "patterns" else digits()
    lines = [json.dumps({"text": image}) + "\n" for image in images]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(options.out, "".join(lines))
    print(f"Wrote {len(lines):,} images to {options.out}.")


if __name__ == "__main__":
    main()
