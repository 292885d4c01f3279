"""`holo generate`: text that follows a prompt, as it comes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, is_terminal, visible
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from holo_cli.inference.generation.early_exit import Calibration
    from holo_cli.inference.generation.stream import Sample, TextGeneration

FINISH = {
    "end": "ended by itself",
    "length": "reached --max-new-tokens",
    "stop": "met --stop",
    "stopped": "broken off",
}


def generate(
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What to go on from.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Read the prompt from a file.")
    ] = None,
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    no_repeat_ngram_size: options.NoRepeatNgram = None,
    stop: options.Stop = None,
    num_samples: Annotated[
        int | None, typer.Option("--num-samples", metavar="N", help="How many texts.  [1]")
    ] = None,
    seed: options.Seed = None,
    lang: options.Lang = None,
    memory: Annotated[
        Path | None,
        typer.Option("--memory", metavar="FILE", help="Draw on a memory saved by /memory save."),
    ] = None,
    exit_threshold: options.ExitThreshold = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Write the text that follows a prompt.

    The prompt is --prompt, --file or standard input; with none of them a text is begun.
    """
    out = Output(json=json, verbosity=verbosity)
    text = read_prompt(prompt, file)
    from dataclasses import asdict

    from holo_cli.cli.compute import load, tell_newest
    from holo_cli.inference.chat.conversation_memory import read_memory, recall_from
    from holo_cli.inference.generation.early_exit import choose_threshold, mean_depth
    from holo_cli.inference.generation.sampling import SamplingConfig

    sampling = SamplingConfig.from_options(
        options.given(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            stop=stop,
            num_samples=num_samples,
            seed=seed,
        )
    )
    loaded = load(checkpoint, device, dtype)
    tell_newest(checkpoint, loaded, out)
    if exit_threshold is not None and (found := choose_threshold(loaded, exit_threshold)):
        out.note(calibrated(found))
    if missing := loaded.tokenizer.unknown(text):
        out.warn(f"the model's alphabet lacks {' '.join(missing)}: left out.")
    mixer = recall_from(loaded, read_memory(memory, loaded), text) if memory else None
    writing = loaded.write(text, sampling, lang, mixer)
    write(writing, out)
    samples = writing.samples
    result = {"samples": [asdict(s) for s in samples], "prompt_tokens": writing.prompt_tokens}
    depth = mean_depth(writing.decoding.state)
    out.document(result if depth is None else result | {"mean_depth": round(depth, 3)})
    for sample in samples:
        out.note(figures(sample, writing.prompt_tokens))
    if exit_threshold is not None and depth is not None:
        out.note(f"{depth:.2f} of {loaded.config.layers} layers a token, the prompt's among them.")
    out.end("", f"holo chat{f' -c {checkpoint}' if checkpoint else ''}")


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from where it was given; nothing at all starts a text of the model's own."""
    if prompt is not None and file is not None:
        raise UsageError("--prompt and --file exclude each other.", next_step="Leave one out.")
    if prompt is not None:
        return prompt
    if file is not None and str(file) != "-":
        text = file.read_text(encoding="utf-8-sig")
    else:
        text = "" if is_terminal(sys.stdin) else sys.stdin.read()
    return text.removesuffix("\n")  # the line end that editors and `echo` add


def write(writing: TextGeneration, out: Output) -> None:
    """Stream the first sample to stdout; others, which come alongside it, follow it whole."""
    many = len(writing.samples) > 1
    if many:
        out.text("--- sample 1")
    shown = ""
    # A pipe gets the text as it is; a terminal must not obey what a model happens to write.
    show = visible if is_terminal(sys.stdout) else str
    for piece in writing:
        if piece.row == 0 and not out.json:
            shown += piece.text
            out.text(show(piece.text), end="")
        if out.reader_gone:
            writing.stop()
            return
    out.text("", end="" if shown.endswith("\n") else "\n")
    for number, sample in enumerate(writing.samples[1:], start=2):
        out.text(f"--- sample {number}")
        out.text(show(sample.text))


def calibrated(found: Calibration) -> str:
    """One line about a threshold that was looked for, for stderr."""
    return (
        f"Exit threshold {found.threshold:g}: {found.loss:.4f} nats a token at "
        f"{found.mean_depth:.2f} of {found.layers} layers, {found.full_loss:.4f} at all, on "
        f"{found.tokens:,} validation tokens."
    )


def figures(sample: Sample, prompt_tokens: int) -> str:
    """One line about a sample, for stderr."""
    speed = f", {sample.tokens_per_second:.1f} tokens/s" if sample.tokens_per_second else ""
    finish = FINISH.get(sample.finish, sample.finish)
    return f"{sample.tokens} tokens{speed}, {finish}; the prompt has {prompt_tokens}."
