"""`holo inspect` as data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from holo_cli.checkpoint import Losses, inspect_checkpoint, save
from holo_cli.checkpoint.header import FORMAT_VERSION

if TYPE_CHECKING:
    from conftest import Run


def test_it_says_what_there_is(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "small_last.safetensors"
    header = run.header.model_copy(
        update={"kind": "last", "losses": Losses(val=1.5), "history": [{"step": 7, "val": 1.5}]}
    )
    save(path, header, run.tensors() | {"optimizer/momentum": torch.zeros(100)})
    found = inspect_checkpoint(path)
    assert json.loads(json.dumps(found)) == found
    assert (found["model"], found["step"], found["val_loss"]) == ("vanilla", 7, 1.5)
    assert (found["run"], found["kind"], found["format"]) == ("small", "last", FORMAT_VERSION)
    assert found["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert found["bytes"] == 4 * (found["parameters"] + 100)
    assert found["config"]["model"]["layers"] == 2
    assert found["tokenizer"]["kind"] == "char"
    assert found["tokenizer"]["vocab_size"] == run.tokenizer.vocab_size
    assert found["history"] == [{"step": 7, "val": 1.5}]
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert by_name["optimizer/momentum"] == {
        "name": "optimizer/momentum",
        "shape": [100],
        "dtype": "F32",
        "bytes": 400,
    }
    assert found["shared"] == {"model/head.weight": "model/embedding.token.weight"}


def test_it_imports_no_torch(tmp_path: Path, make: Callable[..., Run]) -> None:
    path = make(width=64).save(tmp_path / "a.safetensors")
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    code = (
        "import sys; from holo_cli.checkpoint import inspect_checkpoint, read_header\n"
        "read_header(sys.argv[1]); print(inspect_checkpoint(sys.argv[1])['step'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["7", "False"]
