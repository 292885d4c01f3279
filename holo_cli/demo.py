"""The whole tour in about two minutes: data, training, samples in two languages, a page.

What `holo demo` runs, and an example of how the parts are used from Python. Running it again
re-uses the prepared stories and replaces the demo's own run; it touches nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holo_cli.errors import UsageError
from holo_cli.paths import DATA, PAGES
from holo_cli.wording import counted

Events = Callable[[dict[str, Any]], None]

PROMPTS = {"en": "Long ago,", "ko": "옛날 옛적,"}


@dataclass(frozen=True)
class TourPlan:
    """What the tour does. The number of steps is what fits `train_seconds` here."""

    model: str = "vanilla"
    preset: str = "demo"
    train_seconds: float = 115.0
    least_steps: int = 300  # fewer leave broken words in the text, most of all in Korean
    most_steps: int = 1500
    text_bytes: int = 4_500_000
    tokenizer: str = "bpe"
    vocab_size: int = 2048
    sample_tokens: int = 120
    temperature: float = 0.6
    seed: int = 1
    patient: bool = True  # whether training may take longer than `train_seconds`

    @property
    def run(self) -> str:
        """The name of the demo's run; a second demo of the same model replaces it."""
        return f"demo-{self.model}"


def run(
    plan: TourPlan,
    *,
    data_root: Path = DATA,
    pages_root: Path = PAGES,
    say: Callable[[str], None] = print,
    progress: Callable[[Any], None] | None = None,
    events: Events = lambda event: None,
    wrote: Callable[[dict[str, Any]], None] = lambda sample: None,
) -> dict[str, Any]:
    """Prepare, train, write in each language, draw. `say` gets one line per step, `wrote` each
    sample as it comes.

    Returns {"data", "checkpoint", "samples": [{"lang", "prompt", "text", ...}], "pages",
    "seconds"}. Raises what the parts raise.
    """
    from holo_cli.config.resolve import resolve

    begun = time.perf_counter()
    resolve(plan.model)  # what cannot be trained is refused before anything is prepared
    if not 0 < plan.train_seconds < math.inf:
        raise UsageError(
            f"--time-limit must be above 0 seconds, not {plan.train_seconds:g}.",
            next_step="For example: --time-limit 60",
        )
    # a set of its own: `holo prepare stories` makes another one, with the defaults
    data = _prepare(plan, data_root / "demo", say, progress)
    checkpoint = _train(plan, data, say, events)
    say("3. Let it write.")
    samples = _write(plan, checkpoint, wrote)
    say("4. Look inside it.")
    page = _draw(plan, checkpoint, samples, pages_root)
    return {
        "data": data.as_posix(),
        "checkpoint": Path(checkpoint).as_posix(),
        "samples": samples,
        "pages": [page],
        "seconds": time.perf_counter() - begun,
    }


def _prepare(
    plan: TourPlan, folder: Path, say: Callable[[str], None], progress: Callable[[Any], None] | None
) -> Path:
    from holo_cli.data.prepare.prepare import prepare

    if (folder / "meta.json").is_file():  # written last: with it the set is complete
        say(f"1. Stories in English and Korean: already in {folder}.")
        return folder
    say(f"1. Tell and prepare {plan.text_bytes / 1e6:.1f} MB of stories in English and Korean.")
    prepare(
        ["stories"],
        out=folder,
        tokenizer=plan.tokenizer,
        vocab_size=plan.vocab_size,
        max_bytes=plan.text_bytes,
        progress=progress,
    )
    return folder


def _train(plan: TourPlan, data: Path, say: Callable[[str], None], events: Events) -> str:
    from holo_cli.config.resolve import resolve
    from holo_cli.inference.generation.samples import sample_text
    from holo_cli.registry import preset_names
    from holo_cli.training.calibrate import steps_within
    from holo_cli.training.run import train

    # a model without a preset made for the demo runs in its default size
    preset = plan.preset if plan.preset in preset_names(plan.model) else None
    resolved = resolve(plan.model, preset, flags={"data.path": str(data)})
    fits = steps_within(resolved, plan.train_seconds)
    # a slow machine takes more time rather than writing broken words, and says so; a preset of
    # another model is not known to need as many
    least = plan.least_steps if plan.patient and preset else 1
    steps = min(plan.most_steps, max(fits, least))
    seconds = plan.train_seconds * max(1.0, steps / fits)
    resolved = resolved.replace(
        {
            "training.steps": steps,
            "training.warmup": min(resolved.training.warmup, steps // 10),
            "training.eval_every": -(-steps // 2),
            # a machine that slows down on the way still ends in time
            "training.time_limit": 1.5 * seconds,
        },
        source=f"what fits {seconds:.0f} s",
    )
    say(f"2. Train '{plan.model}': {counted(steps, 'step')}, about {seconds:.0f} seconds here.")
    if seconds > plan.train_seconds:
        say(
            f"This machine makes {counted(fits, 'step')} in {plan.train_seconds:.0f} s; words come "
            f"whole after about {least}, so training takes longer. --time-limit "
            f"{plan.train_seconds:.0f} keeps to the time."
        )
    done = train(resolved, run=plan.run, force=True, events=events, sampler=sample_text)
    return str(done["best"] or done["last"])


def _write(
    plan: TourPlan, checkpoint: str, wrote: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    from holo_cli.inference.generation.loaded_model import load

    loaded = load(checkpoint)
    samples = []
    for lang, prompt in PROMPTS.items():
        full = loaded.generate_full(
            prompt,
            lang=lang,
            max_new_tokens=plan.sample_tokens,
            temperature=plan.temperature,
            top_p=0.95,
            seed=plan.seed,
        )
        samples.append({"lang": lang, "prompt": prompt, **full["samples"][0]})
        wrote(samples[-1])
    return samples


def _draw(plan: TourPlan, checkpoint: str, samples: list[dict[str, Any]], folder: Path) -> str:
    from holo_cli.visualize import make_page

    text = samples[0]["prompt"] + samples[0]["text"]
    page = make_page("coords", checkpoint, text, folder / f"{plan.run}-coords.html")
    return Path(page["page"]).as_posix()
