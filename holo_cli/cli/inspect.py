"""`holo inspect`: describes a checkpoint, and checks its tensors against their digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.cli import options
from holo_cli.cli.output import Output, count, size
from holo_cli.names import quoted
from holo_cli.translation import translate


def inspect(
    checkpoint: options.CheckpointArgument = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Show a checkpoint's metadata and verify its tensors.

    Prints header, config, tokenizer and history; with -v also every tensor.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.checkpoint import find_checkpoint, inspect_checkpoint

    found = inspect_checkpoint(find_checkpoint(checkpoint))
    out.document(found)
    out.facts(header(found))
    for section, table in found["config"].items():
        out.text(f"\n[{section}]")
        out.facts(table.items(), literal=True)
    for title in ("stages", "history"):
        if found[title]:
            out.text(f"\n{translate(title)}")
            entries(found[title], out)
    if verbosity:
        out.text("\n" + translate("tensors"))
        tensors = [(t["name"], tuple(t["shape"]), t["dtype"]) for t in found["tensors"]]
        out.table(("name", "shape", "dtype"), tensors, literal=True)
    check(found, out)
    talks = found["data"].get("chat") is not None
    use = "holo chat -c" if talks else "holo generate -c"
    then = "holo resume" if found["kind"] == "last" else use
    out.end("", f"{then} {quoted(found['path'])}")


def check(found: dict[str, Any], out: Output) -> None:
    """Reports what reading the tensors showed. Raises CheckpointError for damaged ones."""
    from holo_cli.checkpoint.header import damaged, short_line

    verified = found["verified"]
    for name, wrong in verified["not_finite"].items():
        out.warn(f"{wrong:,} values of '{short_line(name)}' are NaN or infinite.")
    if verified["damaged"]:
        first, *more = verified["damaged"]
        also = f" (and {len(more)} more)" if more else ""
        raise damaged(Path(found["path"]), f"the tensor '{first}'{also} differs from its digest")


def data_line(data: dict[str, Any]) -> str:
    """The set's name, or those of several sets with their shares."""
    from holo_cli.checkpoint.header import DataInfo

    return DataInfo.model_validate(data).title or "unknown"


def chat_line(chat: dict[str, Any]) -> str:
    """The marks of the chat format that the model was trained with."""
    return " ".join(chat[name] for name in ("system", "user", "assistant", "end"))


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the history with the loss of each of several sets in a column of its own."""
    sets = row.get("sets", {}).items()
    rest = {key: value for key, value in row.items() if key != "sets"}
    return rest | {f"val_loss {name}": figures.get("val_loss") for name, figures in sets}


def entries(found: list[dict[str, Any]], out: Output) -> None:
    """Prints a table of rows that may have different keys."""
    found = [flat(row) for row in found]
    columns = list(dict.fromkeys(key for entry in found for key in entry))
    rows = [[entry.get(column, "") for column in columns] for entry in found]
    shown = [[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows]
    out.table(columns, shown, literal=True)


def origin_line(row: dict[str, Any]) -> str:
    """A checkpoint that the run's weights came from, in a few words."""
    loss = "" if row["val_loss"] is None else f", val loss {row['val_loss']:.4f}"
    return f"{row['run'] or 'unnamed'}, step {row['step']:,}, data {row['data'] or 'unknown'}{loss}"


LOSSES = {
    "train": "train loss",
    "val": "val loss",
    "bpb": "bits per byte",
    "best_val": "best val loss",
}


def digests(verified: dict[str, Any]) -> str:
    """The outcome of checking the tensors, in a few words."""
    if not verified["digests"]:
        return "none: written by an older holo, so damage to weights is not noticed"
    if verified["damaged"]:
        return f"{len(verified['damaged'])} of {verified['digests']} tensors differ from theirs"
    return f"all {verified['digests']} tensors agree with theirs"


def tokenizer_line(tokenizer: dict[str, Any]) -> str:
    """Its kind, and its size where the header says it."""
    if tokenizer["vocab_size"] is None:
        return str(tokenizer["kind"])
    return f"{tokenizer['kind']} of {tokenizer['vocab_size']:,} tokens"


def header(found: dict[str, Any]) -> list[tuple[str, object]]:
    """The main facts about a checkpoint."""
    tokenizer, losses = found["tokenizer"], found["losses"]
    return [
        ("checkpoint", found["path"]),
        ("model", f"{found['model']}, preset {found['preset'] or 'none'}"),
        *(("needs", f"{key} {value}") for key, value in found["needs"].items()),
        ("parameters", count(found["parameters"])),
        ("size", size(found["bytes"]) + (f", in {found['parts']} parts" if found["parts"] else "")),
        ("run", f"{found['run'] or 'none'} ({found['kind']})"),
        ("step", f"{found['step']:,} ({count(found['tokens'])} tokens)"),
        *((LOSSES[name], f"{v:.4f}") for name, v in losses.items() if v is not None),
        *(("started from", origin_line(row)) for row in reversed(found["origins"])),
        ("tokenizer", tokenizer_line(tokenizer)),
        ("data", data_line(found["data"])),
        *(("chat format", chat_line(chat)) for chat in [found["data"].get("chat")] if chat),
        (
            "written",
            f"{found['created']} by " + ", ".join(map(" ".join, found["versions"].items())),
        ),
        ("format", found["format"]),
        ("digests", digests(found["verified"])),
    ]
