"""After SIGKILL at random moments, preparations resume to the same bytes.

The moments differ from run to run; what is tested holds at every one of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holo_cli.data.dataset import PreparedData
from tests.data.prepared import content
from tests.data.sources import hub_layouts as layouts
from tests.data.sources.hub_server import Hub
from tests.forked_workers import run_module

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and fork")


def facts(folder: Path) -> dict[str, Any]:
    """meta.json without its times."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return {key: value for key, value in meta.items() if key not in ("seconds", "created")}


def kill(
    settings: dict[str, Any],
    warm: list[dict[str, Any]],
    folder: Path,
    times: int,
    **environment: str,
) -> int:
    """Kill `times` preparations, finish them, compare; returns how many were resumed."""
    plan = folder / "settings.json"
    plan.write_text(json.dumps({"settings": settings, "warm": warm}), encoding="utf-8")
    words = [str(plan), str(folder), str(times), str(os.urandom(1)[0])]
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **environment}
    if environment:  # some is read when packages are imported
        ran = subprocess.run(
            [sys.executable, "-m", "tests.data.prepare.killing", *words],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3], env=env,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        said = ran.stdout
    else:
        said = run_module("tests.data.prepare.killing", *words, env=env, timeout=900)
    met = json.loads(said.splitlines()[-1])
    assert len(met) == times
    for number in range(times):
        out = folder / f"killed {number}"
        assert content(out) == content(folder / "whole"), (number, met[number])
        assert facts(out) == facts(folder / "whole"), (number, met[number])
        PreparedData.open(out)
        assert not (out / ".building").exists()
    return sum(1 for one in met if one["killed"] and one["position"])


def test_killed_at_twenty_moments(tmp_path: Path) -> None:
    lines = []
    for n in range(160):
        text = (layouts.english, layouts.korean)[n % 2](n)
        lines.append(json.dumps({"text": text + ("\0" if n % 9 == 0 else "")}, ensure_ascii=False))
        if n % 11 == 0:
            lines.append("{bad")
        if n % 13 == 0:
            lines.append('{"text": " "}')
    path = tmp_path / "글.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    settings = {
        "source": str(path), "tokenizer": "bpe", "vocab_size": 300, "shard_bytes": 3000,
        "lang": ["ko", "en"], "filter": "none,exact=on",
    }  # fmt: skip
    gone_on = kill(settings, [settings], tmp_path, 20)
    assert gone_on >= 3  # the others were killed before the first shard, or were done


def test_killed_while_streaming_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    layouts.wikipedia(tmp_path / "wp", {"ko": (1, 60), "en": (1, 60)})
    layouts.c4(tmp_path / "c4", files=1, count=60)
    hub.add("wikimedia/wikipedia", tmp_path / "wp")
    hub.add("allenai/c4", tmp_path / "c4")
    settings = {
        "names": ["simple", "c4"], "tokenizer": "bpe", "vocab_size": 300, "shard_bytes": 4000,
        "mix": "simple=0.6,c4=0.4", "filter": "none",
    }  # fmt: skip
    common = {"tokenizer": "char", "filter": "none"}
    warm = [
        {"names": [name], "source": str(tmp_path / folder), **common}
        for name, folder in (("simple", "wp"), ("c4", "c4"))
    ]
    kill(settings, warm, tmp_path, 3, HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path / "home"))
