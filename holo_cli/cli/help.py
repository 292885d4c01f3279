"""Help pages: the examples at the end of every command's `--help`, and the form of defaults.

Pass `cls=Group` to a Typer app and `cls=Command` to its commands. A new command needs a row in
`EXAMPLES`; tests/cli/test_help.py checks that there is one and that its options exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from holo_cli.cli import old_flags
from holo_cli.errors import UsageError
from holo_cli.translation import language, translate

HANGUL_WIDTH = 64  # letters in a line of a Korean help page

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "holo demo",
        "holo train --model ngt --preset tiny --time-limit 120",
        'holo generate --prompt "Once upon a time"',
    ),
    "demo": ("holo demo", "holo demo --model ngt --time-limit 60"),
    "prepare": (
        "holo prepare stories",
        "holo prepare mine --source texts/ --tokenizer bpe --vocab-size 8192",
        "holo prepare korean fineweb --max-bytes 500000000 --mix ko=0.4,en=0.6",
    ),
    "train": (
        "holo train --model vanilla --data stories",
        "holo train --model ngt --preset tiny --steps 2000 --run my-run",
        "holo train --from my-run --data other-text --steps 500 --lr 0.005",
    ),
    "pull": ("holo pull", "holo pull vanilla"),
    "resume": (
        "holo resume",
        "holo resume my-run",
        "holo resume my-run --steps 4000 --run my-run-longer",
    ),
    "generate": (
        'holo generate --prompt "Once upon a time"',
        "holo generate -c my-run --file prompt.txt --temperature 0.6 --top-p 0.9",
        'holo generate --prompt "Long ago," --num-samples 4 --seed 1 --json',
    ),
    "chat": ("holo chat", "holo chat -c my-run --temperature 0.6 --lang ko"),
    "serve": (
        "holo serve -c my-run",
        "holo serve -c my-run -c other-run --port 8080 --memory-budget 2000",
    ),
    "models": (
        "holo models",
        "holo models ngt --vocab-size 32000",
        "holo models ngt --plan --gpus 8 --memory 80 --set model.layers=24",
    ),
    "check": (
        "holo check gla",
        "holo check ideas/mixer.py:MovingAverage",
        "holo check gla --markdown",
    ),
    "new-model": ("holo new-model wavelet", "holo new-model wavelet --out ideas/wavelet"),
    "datasets": ("holo datasets", "holo datasets stories"),
    "inspect": ("holo inspect", "holo inspect my-run -v"),
    "export": (
        "holo export my-run --to weights --out my-run.safetensors",
        "holo export my-run --to hf --out my-run-hf",
    ),
    "import": ("holo import downloads/gpt2", "holo import downloads/gpt2 --run gpt2-small"),
    "compare": (
        "holo compare my-run other-run",
        'holo compare my-run other-run --prompt "One day" --out pages/two.html',
    ),
    "compress": (
        "holo compress book.txt -c my-run",
        "holo compress book.txt -c my-run --chunk-size 8192 --json",
    ),
    "decompress": (
        "holo decompress book.txt.holoz",
        "holo decompress book.txt.holoz -c my-run --out again.txt",
    ),
    "runs": ("holo runs", "holo runs show my-run", "holo runs delete my-run --yes"),
    "runs list": ("holo runs list", "holo runs list --json"),
    "runs show": ("holo runs show my-run", "holo runs show my-run -v"),
    "runs compare": (
        "holo runs compare my-run other-run",
        "holo runs compare a b c --json",
    ),
    "runs rename": (
        "holo runs rename my-run my-first-run",
        "holo runs rename vanilla-stories night --json",
    ),
    "runs delete": ("holo runs delete my-run", "holo runs delete my-run other-run --yes"),
    "visualize": (
        'holo visualize attention my-run --text "The fox ran to the river."',
        "holo visualize coords -c my-run --open",
        "holo visualize training my-run other-run",
    ),
    "eval": (
        "holo eval -c my-run",
        "holo eval -c my-run --file book.txt --stride 128",
        "holo eval -c my-run --suite minimal-pairs --lang en",
    ),
    "bench": (
        "holo bench compare --preset tiny --data stories",
        "holo bench recall --help",
    ),
    "bench compare": (
        "holo bench compare --preset tiny --data stories",
        "holo bench compare --models vanilla,ngt --tune 16 --jobs 2",
        "holo bench compare --models vanilla,ngt --dry-run",
    ),
    "bench ladder": (
        "holo bench ladder --preset tiny --data stories",
        "holo bench ladder --models vanilla,ngt --budgets 10,20 --seeds 3",
        "holo bench ladder --dry-run",
    ),
    "bench controls": (
        "holo bench controls --preset tiny --data stories",
        "holo bench controls --jobs 2",
    ),
    "bench recall": (
        "holo bench recall --preset tiny",
        "holo bench recall --models vanilla,mamba --jobs 2",
    ),
    "bench brain": (
        "holo bench brain --preset tiny --data stories",
        "holo bench brain --data stories --markdown",
    ),
    "bench speed": (
        "holo bench speed --models vanilla,ngt --preset tiny",
        "holo bench speed --context 1024 --batch-size 4 --json",
    ),
    "bench scaling": (
        "holo bench scaling --models vanilla,ngt",
        "holo bench scaling --models vanilla,mamba --markdown",
    ),
    "bench decode": (
        "holo bench decode --models vanilla,mamba",
        "holo bench decode --models vanilla,mamba --markdown",
    ),
    "bench guard": (
        "holo bench guard",
        "holo bench guard --no-compile --seconds 60",
        "holo bench guard --update --baseline mine.json",
    ),
}

# Typer writes "[default: 5]"; option texts of this project write "(default: 5)".
_WORDS = re.compile(r"^(Usage: .*|Arguments:|Options:|Commands:|Examples:)$|\[required\]", re.M)
_DEFAULT = re.compile(r"\[default:(\s[^\]]*)\]")


def _write_examples(ctx: typer.Context, formatter: Any) -> None:
    path = " ".join(ctx.command_path.split()[1:])  # without the program's name
    if path in EXAMPLES:
        with formatter.section("Examples"):
            formatter.write("".join(f"  $ {example}\n" for example in EXAMPLES[path]))


def _refuse_repeated(ctx: Any, order: Sequence[Any]) -> None:
    """Raise UsageError for an option given twice, of which only the last value would count."""
    seen: set[str] = set()
    for parameter in order:
        if parameter.param_type_name != "option" or parameter.multiple or parameter.count:
            continue
        if parameter.is_flag and not parameter.secondary_opts:
            continue  # on is on
        if parameter.name in seen:
            flag = max(parameter.opts, key=len)
            raise UsageError(
                f"{flag} was given twice.",
                next_step=f"Give it once. See: {ctx.command_path} --help",
            )
        seen.add(parameter.name)


def _replaced(error: TyperException, ctx: Any, parameters: Sequence[Any]) -> UsageError | None:
    """The error that names what replaces an option of another project; None for any other error."""
    name = getattr(error, "option_name", None)
    known = {flag for p in parameters for flag in (*p.opts, *p.secondary_opts)}
    if name is None or name in known:
        return None
    return old_flags.unknown_option(name, ctx.command_path, known)


def _stray(ctx: Any, parameters: Sequence[Any], rest: Sequence[str]) -> UsageError | None:
    """The error for an argument of a command that takes a checkpoint with -c and none without; None
    where Typer's own says it all."""
    known = {flag for p in parameters for flag in p.opts}
    if not rest or "--checkpoint" not in known or ctx.resilient_parsing:
        return None
    path = ctx.command_path
    if "--prompt" in known:
        hint = f'Name a checkpoint with -c and a prompt with -p: {path} -c NAME -p "TEXT"'
    else:
        hint = f"Name a checkpoint with -c: {path} -c NAME"
    return UsageError(f"Unexpected argument of {path}: '{rest[0]}'.", next_step=hint)


def _translate(command: Any, ctx: Any) -> None:
    """Put the texts of a command's help page into the user's language before Typer wraps them."""
    if language() == "en":
        return
    # lines are wrapped by counting letters, and a Hangul letter takes two columns
    ctx.max_content_width = HANGUL_WIDTH
    command.help = _by_paragraph(command.help)
    for parameter in command.get_params(ctx):  # also Typer's own, such as --install-completion
        if getattr(parameter, "help", None):
            parameter.help = translate(parameter.help)


def _by_paragraph(text: str | None) -> str:
    return "\n\n".join(map(translate, (text or "").split("\n\n")))


def _finished(page: str) -> str:
    """The page with what Typer itself writes in the project's form and the user's language."""
    label = translate("(default: {0})").partition(":")[0]
    page = _DEFAULT.sub(rf"{label}:\1)", page)
    return _WORDS.sub(lambda found: translate(found[0]), page)


class Command(TyperCommand):
    """A command whose help ends with its examples, and that takes each option once.

    Its options are read from the function's signature when they are first needed: reading those of
    all commands took half the time of `holo --help`, which shows none.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._unread: Callable[..., Any] | None = getattr(self.callback, "function", None)

    @property
    def params(self) -> list[Any]:
        if self._unread is not None:
            whole = typer.Typer(add_completion=False)
            whole.command()(self._unread)
            self._unread = None
            read = get_command(whole)
            self._params, self.callback = read.params, read.callback
        return self._params

    @params.setter
    def params(self, value: list[Any]) -> None:
        self._params = value
        self._unread = None

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            try:
                values, rest, order = parse(args)
            except TyperException as error:
                if (replaced := _replaced(error, ctx, self.get_params(ctx))) is not None:
                    raise replaced from error
                raise
            _refuse_repeated(ctx, order)
            if (stray := _stray(ctx, self.get_params(ctx), rest)) is not None:
                raise stray
            return values, rest, order

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def get_help(self, ctx: Any) -> str:
        _translate(self, ctx)
        return _finished(super().get_help(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        self.help = _by_paragraph(self.help)
        return super().get_short_help_str(limit)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(ctx, formatter)


class Group(TyperGroup):
    """A group of commands whose help ends with examples."""

    def get_help(self, ctx: Any) -> str:
        _translate(self, ctx)
        return _finished(super().get_help(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        self.help = _by_paragraph(self.help)
        return super().get_short_help_str(limit)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(ctx, formatter)


class App(typer.Typer):
    """A Typer app whose commands are `Command`s."""

    def __init__(self, **settings: Any) -> None:
        # Plain help: fast, and the same in every terminal and pipe.
        settings = {"cls": Group, "rich_markup_mode": None, "no_args_is_help": True} | settings
        super().__init__(**settings)
        self._built: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line. All commands are built at the first, which takes a tenth of a second,
        once for each language: their help is translated in place."""
        spoken = language()
        if spoken not in self._built:
            self._built[spoken] = get_command(self)
        return self._built[spoken](*args, **kwargs)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        register = super().command(name, cls=Command, **settings)

        def take(function: Callable[..., Any]) -> Callable[..., Any]:
            def unread() -> None:
                """Stands for `function` until `Command.params` reads its signature."""

            unread.__name__, unread.__doc__ = function.__name__, function.__doc__
            unread.function = function  # type: ignore[attr-defined]
            register(unread)
            return function

        return take
