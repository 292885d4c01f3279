"""`holo export`: writes a checkpoint in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, size
from holo_cli.names import quoted


def export(
    checkpoint: options.CheckpointArgument = None,
    model: options.ModelFile = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="Output format: weights (a checkpoint without training state), hf (a folder for "
            "transformers), gguf (a file for llama.cpp), or dir (config.json, model.safetensors, "
            "tokenizer.json).",
        ),
    ] = "weights",
    out_path: options.Out = None,
    force: options.Force = False,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Export a checkpoint to another format."""
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint import find_checkpoint
    from holo_cli.export import export as write

    result = write(find_checkpoint(checkpoint), to, out_path, force=force)
    out.document({"path": result.path, "bytes": result.bytes})
    out.text(str(result.path))
    for note in result.notes:
        out.note(note)
    then = f"holo inspect {quoted(result.path)}"
    if to == "hf":
        runs_code = (result.path / "modeling_holo.py").exists()
        trusted = ", trust_remote_code=True" if runs_code else ""
        then = f'transformers.AutoModelForCausalLM.from_pretrained("{result.path}"{trusted})'
    elif to == "gguf":
        then = f"llama-cli -m {quoted(result.path)}"
    out.end(f"Wrote {result.path} ({size(result.bytes)}).", then)
