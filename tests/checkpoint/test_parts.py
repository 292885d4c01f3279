"""Checkpoints in parts: read like those of one file, valid only whole, and nothing in them is
trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp

from holo_cli.checkpoint import (
    CheckpointError,
    Header,
    TensorFile,
    inspect_checkpoint,
    load_model,
    load_training,
    read_header,
    save,
)
from holo_cli.checkpoint.digest import text_digest
from holo_cli.checkpoint.parts import (
    PARTS_DIGEST_KEY,
    PARTS_KEY,
    PartFile,
    TensorPiece,
    part_name,
    parts_folder,
)
from holo_cli.checkpoint.run_files import delete_run, rename_run
from holo_cli.checkpoint.runs import find_run
from holo_cli.checkpoint.stored import StoredTensors
from holo_cli.checkpoint.write import FORMAT_NAMES, share
from holo_cli.checkpoint.write_parts import write_index, write_part
from holo_cli.errors import UsageError
from holo_cli.export.targets import export
from holo_cli.parsing import parse_json
from tests.checkpoint.old_format import rewrite_head

if TYPE_CHECKING:
    from conftest import Run


def save_in_parts(
    path: Path, header: Header, tensors: dict[str, Tensor], count: int = 3, token: str = "0" * 8
) -> Path:
    """What `count` processes write that hold the rows of every tensor in turn."""
    stored, shared = share(tensors)
    pieces: dict[str, list[TensorPiece]] = {name: [] for name in stored}
    parts = []
    for rank in range(count):
        mine, first = {}, {}
        for name, tensor in stored.items():
            each = -(-len(tensor) // count) if tensor.ndim else 1
            begin = rank * each
            rows = tensor[begin : begin + each] if tensor.ndim else tensor
            if len(rows) if tensor.ndim else not rank:
                mine[name], first[name] = rows, begin
        part = part_name(header.step, token, rank)
        size, digests = write_part(path, part, mine, first)
        parts.append(PartFile(name=part, bytes=size))
        for name, rows in mine.items():
            many = len(rows) if rows.ndim else 1
            piece = TensorPiece(part=rank, first=first[name], rows=many, crc32=digests[name])
            pieces[name].append(piece)
    listed = {
        name: (FORMAT_NAMES[t.dtype], list(t.shape), pieces[name]) for name, t in stored.items()
    }
    write_index(path, header, parts, listed, shared)
    return path


@pytest.fixture
def both(tmp_path: Path, run: Run) -> tuple[Path, Path]:
    """The same checkpoint as one file and in parts."""
    tensors = run.tensors() | {"optimizer/adam/x/step": torch.tensor(3.0)}
    header = run.header.model_copy(update={"kind": "last", "state": {"step": 7}})
    one = tmp_path / "one_last.safetensors"
    save(one, header, tensors)
    return one, save_in_parts(tmp_path / "small_last.safetensors", header, tensors)


def test_every_reader_finds_what_one_file_has(both: tuple[Path, Path], tokens: Tensor) -> None:
    one, parts = both
    (header, found), (other, expected) = load_training(parts), load_training(one)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], t) for name, t in expected.items())
    assert (header.step, header.shared) == (other.step, other.shared)
    assert read_header(parts).kind == "last"
    models = [load_model(path)[0] for path in both]
    assert torch.equal(models[0](tokens), models[1](tokens))
    a, b = (inspect_checkpoint(path) for path in both)
    assert (a["parameters"], a["bytes"]) == (b["parameters"], b["bytes"])
    assert (a["parts"], b["parts"], b["format"]) == (0, 3, 3)
    assert b["verified"]["damaged"] == []
    assert b["verified"]["digests"] == len(b["tensors"])
    written = export(parts, "weights").path
    assert read_header(written).format == 2
    assert torch.equal(load_model(written)[0](tokens), models[0](tokens))


def test_rows_are_read_alone(both: tuple[Path, Path]) -> None:
    for path in both:
        with TensorFile(path) as file:
            stored = StoredTensors(file)
            model = stored.part("model/")
            name = next(n for n in model if n.endswith("weight") and model.shape(n)[0] > 8)
            whole = model[name]
            for first, count in ((0, 1), (3, 5), (0, len(whole)), (len(whole), 0)):
                assert torch.equal(model.rows(name, first, count), whole[first : first + count])
            assert "optimizer/adam/x/step" in stored
            assert "optimizer/adam/x/step" not in stored.leaving_out("optimizer/")


def test_pytorch_reads_the_parts(both: tuple[Path, Path]) -> None:
    """They are in the layout of torch.distributed.checkpoint's own safetensors writer."""
    expected = load_training(both[0])[1]
    with TensorFile(both[1]) as file:
        names = [name for name in expected if name not in file.header.shared]
    into = {name: torch.zeros_like(expected[name]) for name in names}
    reader = dcp.HuggingFaceStorageReader(str(parts_folder(both[1])))
    dcp.load(into, storage_reader=reader, no_dist=True)
    assert all(torch.equal(into[name], expected[name]) for name in names)


def test_a_save_replaces_the_one_before(both: tuple[Path, Path], run: Run) -> None:
    path = both[1]
    before = sorted(parts_folder(path).iterdir())
    save_in_parts(path, run.header, run.tensors(), count=2, token="1" * 8)
    after = sorted(parts_folder(path).iterdir())
    assert len(after) == 2
    assert not {*before} & {*after}
    save(path, run.header, run.tensors())  # in one file again
    assert not parts_folder(path).exists()
    load_model(path)


def test_an_unfinished_save_is_not_seen(both: tuple[Path, Path], run: Run) -> None:
    path = both[1]
    before = load_training(path)[1]
    write_part(path, part_name(8, "2" * 8, 0), run.tensors(), dict.fromkeys(run.tensors(), 0))
    assert all(torch.equal(t, before[name]) for name, t in load_training(path)[1].items())


def test_a_reader_keeps_what_it_opened(both: tuple[Path, Path], run: Run) -> None:
    path = both[1]
    expected = load_training(path)[1]
    with TensorFile(path) as file:
        other = {name: torch.zeros_like(t) for name, t in run.tensors().items()}
        save_in_parts(path, run.header, other, token="3" * 8)
        assert all(torch.equal(t, expected[name]) for name, t in file.read_all().items())


# -- what can be wrong ----------------------------------------------------------------------------


def refused(path: Path, match: str, load: Callable[[Path], object] = load_model) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize("load", [load_model, read_header])
def test_a_missing_part_is_named(both: tuple[Path, Path], load: Callable[[Path], object]) -> None:
    part = sorted(parts_folder(both[1]).iterdir())[1]
    part.unlink()
    refused(both[1], f"has its tensors in 3 files of .*small_last.parts, and {part.name} is", load)


def test_damage_is_found(both: tuple[Path, Path]) -> None:
    part = sorted(parts_folder(both[1]).iterdir())[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    refused(both[1], f"its part {part.name} has {len(content) - 1} bytes", read_header)
    part.write_bytes(content[:-5] + bytes([content[-5] ^ 4]) + content[-4:])
    refused(both[1], "differs from its digest")
    assert len(inspect_checkpoint(both[1])["verified"]["damaged"]) == 1


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Forge the list of parts, digest and all."""

    def forge(entries: dict[str, Any], header: dict[str, Any]) -> None:
        metadata = entries["__metadata__"]
        found = parse_json(metadata[PARTS_KEY])
        edit(found)
        metadata[PARTS_KEY] = json.dumps(found)
        metadata[PARTS_DIGEST_KEY] = text_digest(metadata[PARTS_KEY])

    rewrite_head(path, forge, digests=True)


NAME = "model/embedding.token.weight"
FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "outside": (lambda f: f["parts"][0].update(name="../../secret.safetensors"), "cannot name a"),
    "unlisted": (lambda f: f["parts"].pop(), "in a part that is not listed"),
    "gap": (lambda f: f["tensors"][NAME]["pieces"].pop(0), "row 0 is in no piece"),
    "short": (lambda f: f["tensors"][NAME]["pieces"].pop(), r"have \d+ of \d+ rows"),
    "twice": (
        lambda f: f["tensors"][NAME]["pieces"].append(f["tensors"][NAME]["pieces"][0]), "or in sev"
    ),
    "dtype": (lambda f: f["tensors"][NAME].update(dtype="F7"), "dtype 'F7' is unknown"),
    "other part": (lambda f: f["tensors"][NAME]["pieces"][0].update(part=2), "does not fit the"),
    "huge": (
        lambda f: f["tensors"].update(
            x={"dtype": "F32", "shape": [1, 2**60], "pieces": [
                {"part": 0, "first": 0, "rows": 1, "crc32": "0" * 8}]}
        ),
        r"its parts have \d+ bytes and its tensors",
    ),
    "key": (lambda f: f.update(more=1), "key 'more' is unknown"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_list_is_refused(both: tuple[Path, Path], kind: str) -> None:
    edit, says = FORGERIES[kind]
    change(both[1], edit)
    refused(both[1], says)


def test_a_changed_list_is_refused(both: tuple[Path, Path]) -> None:
    def forge(entries: dict[str, Any], header: dict[str, Any]) -> None:
        entries["__metadata__"][PARTS_KEY] += " "

    rewrite_head(both[1], forge)
    refused(both[1], "list of parts differs from the list's digest")


# -- runs -----------------------------------------------------------------------------------------


def test_a_run_is_renamed_counted_and_deleted_with_its_parts(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = load_training(both[1])[1]
    log = tmp_path / "runs" / "small" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="no run 'smal' here") as caught:
        find_run("smal", tmp_path, tmp_path / "runs")
    assert caught.value.next_step == "Did you mean 'small'?"  # named once, by checkpoint and log
    with pytest.raises(UsageError) as caught:
        find_run("zebra", tmp_path, tmp_path / "runs")
    assert caught.value.next_step.count("small") == 1
    log.unlink()
    log.parent.rmdir()
    found = find_run("small", tmp_path, tmp_path / "runs")
    inside = [*parts_folder(both[1]).iterdir(), both[1]]
    assert found.nbytes == sum(path.stat().st_size for path in inside)
    rename_run(found, "new", tmp_path, tmp_path / "runs")
    assert not both[1].exists()
    assert not parts_folder(both[1]).exists()
    header, tensors = load_training(tmp_path / "new_last.safetensors")
    assert header.run == "new"
    assert all(torch.equal(t, expected[name]) for name, t in tensors.items())
    delete_run(find_run("new", tmp_path, tmp_path / "runs"), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("new")]
