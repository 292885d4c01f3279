"""`holo chat`: a conversation in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output


def chat(
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    system: Annotated[
        str | None,
        typer.Option(
            "--system", metavar="TEXT", help="Text before the first turn (default: none)."
        ),
    ] = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    span_penalty: options.SpanPenalty = None,
    no_repeat_ngram_size: options.NoRepeatNgram = None,
    stop: options.Stop = None,
    seed: options.Seed = None,
    lang: options.Lang = None,
    exit_threshold: options.ExitThreshold = None,
    draft_layers: options.DraftLayers = None,
    draft_tokens: options.DraftTokens = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weights: options.Weights = None,
    compile_steps: options.CompiledDecoding = None,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Chat with a model.

    Type /help (/도움말) for the commands. Ctrl-C stops an answer, Ctrl-D ends the chat.
    """
    out = Output(verbosity=verbosity)
    from holo_cli.inference.chat.terminal import run_chat
    from holo_cli.inference.generation.early_exit import choose_threshold
    from holo_cli.inference.generation.sampling import SamplingConfig

    given = options.given(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        span_penalty=span_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        stop=stop,
        seed=seed,
        draft_layers=draft_layers,
        draft_tokens=draft_tokens,
    )
    sampling = SamplingConfig.from_options(given)
    from holo_cli.cli.compute import load_with_options

    loaded = load_with_options(checkpoint, device, dtype, weights, compile_steps)
    if exit_threshold is not None:
        choose_threshold(loaded, exit_threshold)
    if compile_steps:
        from holo_cli.inference.generation.compiled_step import check_compiling

        check_compiling(loaded.model, sampling)
        out.note("The decoding step is compiled at the first answer, which takes up to a minute.")
    raise typer.Exit(run_chat(loaded, sampling, system or "", lang, quiet=out.quiet))
