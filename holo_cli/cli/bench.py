"""`holo bench`: the commands that measure. Registers them and nothing else.

Each command is in a file beside this one and imports its library inside its function.
"""

from __future__ import annotations

from holo_cli.cli import (
    bench_brain,
    bench_compare,
    bench_controls,
    bench_guard,
    bench_ladder,
    bench_recall,
    bench_speed,
)
from holo_cli.cli.help import App

app = App()


@app.callback()
def bench() -> None:
    """Measure and compare models: quality, recall, speed, memory."""


app.command("compare")(bench_compare.compare)
app.command("ladder")(bench_ladder.ladder)
app.command("controls")(bench_controls.controls)
app.command("recall")(bench_recall.recall)
app.command("brain")(bench_brain.brain)
app.command("speed")(bench_speed.speed)
app.command("scaling")(bench_speed.scaling)
app.command("decode")(bench_speed.decode)
app.command("guard")(bench_guard.guard)
