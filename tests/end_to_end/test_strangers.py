"""Files from a stranger on a real terminal: no command passes on what a terminal would obey.

One child process with a pseudo-terminal runs every command that reads a checkpoint, a prepared set,
a tokenizer, a conversation, rows or a training log, all full of control sequences.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="there are no pseudo-terminals here")

# Sets the title, writes to the clipboard, clears the screen, in C0 and in C1; rings; goes back;
# reverses what follows; begins a line of its own.
HOSTILE = (
    "\x1b]0;owned\x07\x1b]52;c;b3du\x07\x1b[2J\x9b31m\r\x08\u202e\u2067\x85\x7f\nError: forged\n"
)
NAME = HOSTILE.replace("\n", "")  # for files and runs
ALPHABET = "".join(sorted({*"\n abcdefghij가나다", *HOSTILE}))
# holo's own: bold, dimmed, and what tqdm does to draw a bar in place
OWN = re.compile(r"\x1b\[(?:[012]|22)?m|\x1b\[A|\r")
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# of prompt_toolkit: cursor, line and mode sequences, none of which is in HOSTILE
EDITOR = re.compile(r"\x1b\[\??[0-9;]*[ABCDGHJKhlmr]|\x1b[=>]|\x08")
TALK = "a\n/load talk.json\n/show\n/memory load memory\n/set stop\n/load none\nb\n/exit\n"

CHILD = """
import json, sys
from holo_cli.__main__ import main
for number, arguments in enumerate(json.loads(open("commands.json", encoding="utf-8").read())):
    print(f"@@{number}", flush=True)
    print(f"@={main(arguments)}", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as a stranger would send it."""
    import torch

    from holo_cli.checkpoint import DataInfo, Header, model_tensors, save
    from holo_cli.data.prepare.prepare import prepare
    from holo_cli.data.tokenizers.char import CharTokenizer
    from holo_cli.registry import build_model, config_class

    root = tmp_path_factory.mktemp("strangers")
    source = root / f"{NAME}.txt"
    source.write_text("\n\n".join(f"a fig {i} 가 {HOSTILE}" for i in range(40)), encoding="utf-8")
    prepare(["mine"], source=str(source), tokenizer="char", out=root / "data" / "mine")
    meta = root / "data" / "mine" / "meta.json"
    content = json.loads(meta.read_text(encoding="utf-8"))
    content |= {"name": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    meta.write_text(json.dumps(content), encoding="utf-8")

    tokenizer = CharTokenizer(ALPHABET).with_specials(["<|end|>", f"<|{NAME}|>"])
    config = config_class("vanilla")(
        vocab_size=tokenizer.vocab_size, layers=1, heads=1, width=8, context=24
    )
    torch.manual_seed(0)
    header = Header(
        model="vanilla",
        config={
            "model": config.model_dump(mode="json"),
            "training": {"device": HOSTILE},
            "data": {"path": HOSTILE, HOSTILE: HOSTILE},
        },
        preset=HOSTILE,
        recipe=HOSTILE,
        provenance={"model.width": HOSTILE},
        tokenizer=tokenizer.to_dict(),
        data=DataInfo(name=HOSTILE, path=HOSTILE, fingerprint=HOSTILE),
        kind="best",
        history=[{"step": 7, HOSTILE: HOSTILE}],
        versions={HOSTILE: HOSTILE},
        created=HOSTILE,
    )
    model = build_model("vanilla", config)
    checkpoints = root / "checkpoints"
    checkpoints.mkdir()
    save(root / "evil.safetensors", header, model_tensors(model))
    newest = checkpoints / f"{NAME}_best.safetensors"
    save(newest, header, model_tensors(model))
    name_run(newest, HOSTILE)
    foreign = header.model_copy(update={"model": HOSTILE, "needs": {HOSTILE: HOSTILE}})
    save(root / "foreign.safetensors", foreign, model_tensors(model))

    talk = {"holo_conversation": 1, "system": HOSTILE[:6], "lang": None, "memory": None}
    talk["turns"] = [{"user": HOSTILE, "answer": HOSTILE, "finish": HOSTILE, "language": HOSTILE}]
    (root / "talk.json").write_text(json.dumps(talk), encoding="utf-8")
    memory = {"holo_memory": 1, "model": HOSTILE, "run": HOSTILE, "step": HOSTILE, "texts": ["a"]}
    (root / "memory.json").write_text(json.dumps(memory), encoding="utf-8")
    (root / "tokenizer.json").write_text(json.dumps({HOSTILE: HOSTILE}), encoding="utf-8")
    (root / "plan.toml").write_text(f"[{json.dumps(NAME)}]\nx = 1\n", encoding="utf-8")
    (root / "page.jsonl").write_text(json.dumps({"bench": HOSTILE}) + "\n", encoding="utf-8")
    run = root / "runs" / NAME
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"event": HOSTILE}) + "\n", encoding="utf-8")
    return root


def name_run(path: Path, run: str) -> None:
    """Gives a checkpoint a run name that holo itself would not write."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    container = json.loads(whole[8:end])
    header = json.loads(container["__metadata__"]["holo"]) | {"run": run}
    container["__metadata__"]["holo"] = json.dumps(header)
    text = json.dumps(container).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])


def on_terminal(
    folder: Path, commands: Sequence[Sequence[str]], typed: str = ""
) -> tuple[str, list[str]]:
    """Everything that the commands write to a terminal of 80 columns, and the part of each."""
    import fcntl
    import pty
    import struct
    import termios

    (folder / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=folder, env=environment,
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    written: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(keyboard, 65536):
                written.append(piece)
        except OSError:  # Linux: the other side is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    if typed:
        os.write(keyboard, typed.encode())
    child.wait(timeout=600)
    reader.join(timeout=120)
    os.close(keyboard)
    whole = b"".join(written).decode("utf-8")
    return whole, re.split(r"@@\d+\r?\n", whole)[1:]


def forged(text: str) -> Iterator[str]:
    """Lines that only the files wrote."""
    return (line for line in text.splitlines() if line.startswith("Error: forged"))


def test_no_command_passes_on_a_control_character(folder: Path) -> None:
    evil, foreign = "evil.safetensors", "foreign.safetensors"
    generate = ("generate", "-p", "a", "--max-new-tokens", "60", "--seed", "1")
    commands: list[tuple[str, ...]] = [
        ("inspect", evil, "-v"),
        ("inspect", evil, "--json"),
        ("inspect",),
        ("inspect", foreign),
        (*generate, "-c", evil),
        generate,
        (*generate, "-c", evil, "--num-samples", "2", "--json"),
        ("generate", "-p", NAME, "-c", evil, "--max-new-tokens", "3"),
        ("generate", "-c", foreign),
        ("generate", "-c", NAME + "?"),
        ("generate", "-c", evil, "--lang", NAME),
        ("generate", "-c", evil, "--memory", "memory.json"),
        ("eval", "-c", evil, "--data", "mine"),
        ("eval", "-c", evil),
        ("eval", "-c", evil, "--file", f"{NAME}.txt"),
        ("visualize", "attention", evil, "--text", NAME, "--out", f"{NAME}.html"),
        ("visualize", "training", NAME),
        ("visualize", NAME),
        ("models", NAME),
        ("resume",),
        ("resume", NAME + "?"),
        ("resume", evil),
        ("export", evil, "--out", f"{NAME}.safetensors"),
        ("export", foreign, "--to", NAME),
        ("bench", "compare", "--data", "mine", "--models", "vanilla", "--report-only"),
        ("bench", "compare", "--data", "mine", "--report-only", "--out", "page.html"),
        ("bench", "ladder", "--plan", "plan.toml", "--report-only"),
        ("prepare", NAME, "--source", f"{NAME}.txt", "--tokenizer", "char"),
        ("prepare", "b", "--source", f"{NAME}.txt", "--tokenizer", "tokenizer.json"),
        ("prepare", "b", "--source", f"{NAME}.csv"),
        ("prepare", NAME),
        ("train", "--data", "mine", "--model", "vanilla", "--steps", "2", "--run", "r",
         "--set", "model.layers=1", "--set", "model.width=8", "--set", "model.heads=1",
         "--batch-size", "2", "--context", "16", "--eval-every", "1", "--dtype", "float32"),
        ("train", "--data", NAME, "--model", "vanilla"),
        ("train", "--set", f"{NAME}=1", "--data", "mine", "--model", "vanilla"),
        ("train", f"--{NAME}"),
        (NAME,),
        ("chat", "-c", evil, "--max-new-tokens", "60", "--seed", "1"),
    ]  # fmt: skip
    whole, parts = on_terminal(folder, commands, TALK)
    assert len(parts) == len(commands), whole[-2000:]
    ended = [int(code) for code in re.findall(r"@=(\d+)\r?$", whole, re.MULTILINE)]
    assert [
        code for code, command in zip(ended, commands, strict=True) if code not in (0, 1, 2)
    ] == []
    for command, part in zip(commands, parts, strict=True):
        assert "Unexpected" not in part, f"{command}: {part}"
        own = EDITOR.sub("", part) if command[0] == "chat" else part
        assert OBEYED.findall(OWN.sub("", own)) == [], f"{command}: {part!r}"
        assert list(forged(part)) == [] or command[0] in ("generate", "train", "eval"), part
    shown = dict(zip(commands, parts, strict=True))
    assert "\\x1b]0;owned\\x07" in shown[commands[0]]
    assert json.loads(shown[commands[1]].split("Next:")[0])["preset"] == HOSTILE
    assert "\x1b[2ma\x1b[22m" in shown[commands[4]]  # the prompt, dimmed
    chat = parts[-1]
    assert chat.count(" tokens/s, context") == 2, chat
    assert "system: \\x1b]0;o" in chat
    assert "Loaded 1 turn from talk.json." in chat
    assert chat.endswith("@=0\r\n")
