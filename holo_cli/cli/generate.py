"""`holo generate`: continues a prompt, printing text as it is decoded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, is_terminal
from holo_cli.errors import DataError, UsageError
from holo_cli.imports import no_collections
from holo_cli.names import quoted
from holo_cli.translation import translate
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.inference.generation.early_exit import Calibration
    from holo_cli.inference.generation.stream import Sample, TextGeneration

SHOWN_PROMPT = 2000  # characters of a prompt before its continuation
FINISH = {
    "end": "end of text",
    "length": "--max-new-tokens reached",
    "stop": "--stop found",
    "stopped": "interrupted",
}


def generate(
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="Text to continue.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Read the prompt from FILE, or from standard input if FILE is -.",
        ),
    ] = None,
    encoding: options.Encoding = None,
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    span_penalty: options.SpanPenalty = None,
    no_repeat_ngram_size: options.NoRepeatNgram = None,
    stop: options.Stop = None,
    num_samples: Annotated[
        int | None, typer.Option("--num-samples", metavar="N", help="Number of texts (default: 1).")
    ] = None,
    seed: options.Seed = None,
    lang: options.Lang = None,
    memory: Annotated[
        Path | None,
        typer.Option(
            "--memory", metavar="FILE", help="Recall text from a memory file of `holo chat`."
        ),
    ] = None,
    exit_threshold: options.ExitThreshold = None,
    draft_layers: options.DraftLayers = None,
    draft_tokens: options.DraftTokens = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weights: options.Weights = None,
    compile_steps: options.CompiledDecoding = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Generate text that continues a prompt.

    The prompt comes from --prompt, --file or standard input. Without a prompt the model starts a
    new text.
    """
    out = Output(json=json, verbosity=verbosity)
    text = read_prompt(prompt, file, encoding)
    from dataclasses import asdict

    from holo_cli.cli.compute import load_with_options, note_newest

    # the time to the first token is mostly that of imports: what few calls need comes later
    with no_collections():
        from holo_cli.inference.generation.exit_protocol import mean_depth
        from holo_cli.inference.generation.sampling import SamplingConfig

    sampling = SamplingConfig.from_options(
        options.given(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            span_penalty=span_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            stop=stop,
            num_samples=num_samples,
            seed=seed,
            draft_layers=draft_layers,
            draft_tokens=draft_tokens,
        )
    )
    loaded = load_with_options(checkpoint, device, dtype, weights, compile_steps)
    note_newest(checkpoint, loaded, out)
    if not loaded.only_continues:
        out.note(
            "This checkpoint was trained on conversations. The prompt is continued as plain text; "
            "`holo chat` answers it."
        )
    if exit_threshold is not None:
        from holo_cli.inference.generation.early_exit import choose_threshold

        if found := choose_threshold(loaded, exit_threshold):
            out.note(calibration_line(found))
    if missing := loaded.tokenizer.unknown(text):
        out.warn(f"Skipped characters that the tokenizer cannot encode: {' '.join(missing)}")
    mixer, recalled = None, []
    if memory:
        from holo_cli.inference.chat.conversation_memory import encoded, read_memory, recall_from

        recalled = encoded(loaded, read_memory(memory, loaded))
        mixer = recall_from(loaded, recalled, text)
    if compile_steps:
        out.note("Compiling the decoding step, which takes up to a minute the first time.")
    generation = loaded.write(text, sampling, lang, mixer, recalled)
    if compile_steps:
        out.note(f"Compiled in {loaded.engine.compile_seconds:.1f} s, which no speed includes.")
    write(generation, out, text)
    samples = generation.samples
    result = {"samples": [asdict(s) for s in samples], "prompt_tokens": generation.prompt_tokens}
    depth = mean_depth(generation.decoding.state)
    drafted = generation.decoding.drafted
    out.document(
        result
        | ({} if depth is None else {"mean_depth": round(depth, 3)})
        | ({} if drafted is None else {"draft": asdict(drafted)})
        | ({"compile_seconds": round(loaded.engine.compile_seconds, 1)} if compile_steps else {})
    )
    for sample in samples:
        out.note(sample_line(sample, generation.prompt_tokens))
    if exit_threshold is not None and depth is not None:
        layers = loaded.config.layers
        out.note(
            f"Mean depth: {depth:.2f} of {counted(layers, 'layer')} per token, prompt included."
        )
    if drafted is not None:
        out.note(drafted.sentence())
    from holo_cli.plugins import option

    chosen = f" -c {quoted(checkpoint)}" if checkpoint else ""
    out.end("", f"holo chat{option()}{chosen}")


def read_prompt(prompt: str | None, file: Path | None, encoding: str | None = None) -> str:
    """The prompt from --prompt, --file or standard input; "" if there is none."""
    if prompt is not None and file is not None:
        raise UsageError("--prompt and --file cannot be combined.", next_step="Omit one of them.")
    if encoding is not None and (file is None or str(file) == "-"):
        raise UsageError(
            "--encoding needs --file.", next_step="Add --file FILE, or omit --encoding."
        )
    from holo_cli.data.normalize import to_nfc

    if prompt is not None:
        return to_nfc(prompt)
    if file is not None and str(file) != "-":
        text = read_prompt_file(file, encoding)
    else:
        text = "" if is_terminal(sys.stdin) else to_nfc(sys.stdin.read().replace("\r\n", "\n"))
    return text.removesuffix("\n")  # the newline that editors and `echo` add


def read_prompt_file(file: Path, encoding: str | None) -> str:
    """The text of a file, in NFC as all training text. Raises HoloError if it is none."""
    from holo_cli.data.normalize import to_nfc
    from holo_cli.data.sources.decoding import NotText, check_encoding, whole_text
    from holo_cli.names import existing

    check_encoding(encoding)
    path = existing(file)
    if path.is_dir():
        raise UsageError(f"{file} is a folder.", next_step="Give a text file with --file.")
    try:
        return to_nfc(whole_text(path.read_bytes(), str(file), encoding))
    except NotText as error:
        raise DataError(
            error.message, next_step="Give a plain text file, or its encoding with --encoding."
        ) from error


def write(generation: TextGeneration, out: Output, prompt: str) -> None:
    """Streams the first sample to stdout; the others are printed after it. On a terminal each
    follows the prompt, dimmed."""
    many = len(generation.samples) > 1
    if many:
        out.text(translate(f"--- sample {1}"))
    shown = ""
    out.before(shortened(prompt))
    for piece in generation:
        if piece.row == 0 and not out.json:
            shown += piece.text
            out.verbatim(piece.text, end="")
        if out.reader_gone:
            generation.stop()
            return
    out.text("", end="" if shown.endswith("\n") else "\n")
    for number, sample in enumerate(generation.samples[1:], start=2):
        out.text(translate(f"--- sample {number}"))
        out.before(shortened(prompt))
        out.verbatim(sample.text)


def shortened(prompt: str) -> str:
    """The end of a prompt, as it is shown before its continuation."""
    return prompt if len(prompt) <= SHOWN_PROMPT else "..." + prompt[-SHOWN_PROMPT:]


def calibration_line(found: Calibration) -> str:
    """The result of `--exit-threshold auto`, for stderr."""
    return (
        f"Exit threshold {found.threshold:g}: loss {found.loss:.4f} nats per token with "
        f"{found.mean_depth:.2f} of {counted(found.layers, 'layer')} per token, "
        f"{found.full_loss:.4f} with "
        f"all layers, on {counted(found.tokens, 'validation token')}."
    )


def sample_line(sample: Sample, prompt_tokens: int) -> str:
    """The statistics of a sample, for stderr."""
    finish = FINISH.get(sample.finish, sample.finish)
    speed = f"{sample.tokens_per_second:.1f} tokens/s, " if sample.tokens_per_second else ""
    return (
        f"{counted(sample.tokens, 'token')}, {speed}finish: {finish}, prompt: "
        f"{counted(prompt_tokens, 'token')}"
    )
