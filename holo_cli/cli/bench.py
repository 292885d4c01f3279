"""`holo bench`: the commands that measure. Registers them and nothing else.

Each command is in a file beside this one and imports its library inside its function.
"""

from __future__ import annotations

import typer

from holo_cli.cli import bench_compare, bench_controls, bench_ladder, bench_recall, bench_speed
from holo_cli.cli.bench_options import examples

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback(
    epilog=examples(
        "holo bench compare --preset tiny --data stories",
        "holo bench recall --preset tiny",
        "holo bench speed --models vanilla,ngt",
    )
)
def bench() -> None:
    """Measure and compare models: quality, recall, speed, memory."""


app.command(
    "compare",
    epilog=examples(
        "holo bench compare --preset tiny --data stories",
        "holo bench compare --models vanilla,ngt --data shakespeare --dry-run",
        "holo bench compare --models vanilla,ngt --tune 16 --jobs 2",
    ),
)(bench_compare.compare)
app.command(
    "ladder",
    epilog=examples(
        "holo bench ladder --preset tiny --data stories",
        "holo bench ladder --models vanilla,ngt --budgets 10,20 --seeds 3",
        "holo bench ladder --dry-run",
    ),
)(bench_ladder.ladder)
app.command(
    "controls",
    epilog=examples(
        "holo bench controls --preset tiny --data stories",
        "holo bench controls --data shakespeare --jobs 2",
    ),
)(bench_controls.controls)
app.command(
    "recall",
    epilog=examples(
        "holo bench recall --preset tiny",
        "holo bench recall --tasks mqar --models attention,convolution",
        "holo bench recall --dry-run",
    ),
)(bench_recall.recall)
app.command(
    "speed",
    epilog=examples(
        "holo bench speed",
        "holo bench speed --models vanilla,ngt --preset 25m",
        'holo bench speed --models vanilla --variant "gauss=ngt,kernel=gaussian"',
    ),
)(bench_speed.speed)
app.command(
    "scaling",
    epilog=examples(
        "holo bench scaling --models vanilla,holographic",
        "holo bench scaling --preset 25m --lengths 512,2048,16384",
    ),
)(bench_speed.scaling)
app.command(
    "decode",
    epilog=examples(
        "holo bench decode --models vanilla,holographic",
        "holo bench decode --preset 25m --positions 16,512,8192",
    ),
)(bench_speed.decode)
