"""The plan of a comparison: entries (a model and its settings), shared settings, and seeds.

A plan is a TOML file (`configs/bench/*.toml`, or your own) or follows from command-line options. A
variant of a model is an entry like any other. Mistakes are reported before anything is trained:
unknown names and keys, values out of range, sizes that cannot be met, a context longer than the
text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from holo_cli import plugins, registry
from holo_cli.config.sources import SECTIONS, read_sets, scalar
from holo_cli.errors import UsageError, nearest
from holo_cli.names import existing
from holo_cli.parsing import ParseError, read_toml
from holo_cli.wording import counted

MATCHES = ("parameters", "active", "time", "none")
MOST_RUNS = 10_000  # of one entry and of each kind
MOST_PARAMETERS = 10**11  # to match: a search for more takes minutes
ALL = "all"  # instead of names of entries
CHECKPOINT_SUFFIX = ".safetensors"

RESERVED = {  # settings that a comparison sets itself, and how to influence them
    "training.seed": "set the number with --seeds and the first one with --first-seed",
    "training.init_seed": "equal seeds start from the weights of that seed",
    "training.eval_every": "set the number with `evaluations` in the plan",
    "model.vocab_size": "it follows from the tokenizer",
    "data.path": "--data names the prepared set",
    "data.sets": "--data names the prepared set",
}


@dataclass(frozen=True)
class Entry:
    """A model with its settings. `settings` are dotted keys that override the plan's base.

    `rates` (None: the plan's) are factors on both peak learning rates; a single one is used without
    a sweep. `match` and `vary` (None: the plan's) decide whether and how its size is matched.
    """

    name: str
    model: str
    preset: str | None = None
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] | None = None
    match: str | None = None
    vary: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """A whole comparison. The field names are the keys of a plan file."""

    entries: tuple[Entry, ...] = ()
    title: str = ""
    data: str = ""
    base: Mapping[str, Any] = field(default_factory=dict)  # dotted keys that all entries share
    match: str = "parameters"
    target: int = 0  # parameters to match; 0: those of the first entry
    seconds: float = 0.0  # of training, for match = "time"
    tolerance: float = 0.02
    vary: tuple[str, ...] = ("model.width", "model.mlp_ratio")
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    extend: int = 2  # how many rates may be added where the lowest or highest is best
    sweep_share: float = 0.5  # of the steps, in a run of the sweep
    seeds: int = 3
    first_seed: int = 1  # of the reported runs; fresh seeds confirm a result
    evaluations: int = 10  # of a reported run, at equal distances
    tune: int = 0  # trials of each entry over its settings; 0: only rates are swept
    main: tuple[str, ...] = ()  # entries that run by default; empty: all

    def selected(self, names: Sequence[str] | None, variants: Sequence[Entry] = ()) -> Plan:
        """The plan with the entries of `names` ("all": every entry; None: the main entries),
        and the variants."""
        plan = self.with_entries(variants)
        if names is not None and list(names) == [ALL]:
            return plan
        wanted = list(names) if names is not None else [*self.main]
        more = [entry.name for entry in variants]
        if not wanted:
            return plan
        return plan.select([*wanted, *(name for name in more if name not in wanted)])

    def select(self, names: Sequence[str]) -> Plan:
        """Only these entries; see `select_entries`."""
        return replace(self, entries=select_entries(self.entries, names))

    def with_entries(self, more: Iterable[Entry]) -> Plan:
        """With entries added; an entry with an existing name replaces it."""
        entries = {e.name: e for e in self.entries} | {e.name: e for e in more}
        return replace(self, entries=tuple(entries.values()))

    def changed(
        self,
        values: Mapping[str, Any],
        base: Mapping[str, Any] | None = None,
        sets: Iterable[str] = (),
    ) -> Plan:
        """With fields replaced, and keys of the base overridden: `base` dotted, `sets`
        "key=value"."""
        return replace(self, base=shared_settings(self.base, base or {}, sets), **values)

    def with_rates(self, rates: Mapping[str, float], source: str) -> Plan:
        """Each entry at a rate that was found elsewhere. Raises UsageError for a missing rate."""
        for entry in self.entries:
            if entry.name not in rates:
                raise UsageError(
                    f"{source} has no best rate for '{entry.name}'.",
                    next_step=f"It has rates for: {', '.join(sorted(rates)) or 'no entry'}; choose "
                    "entries with --models.",
                )
        entries = (replace(e, rates=(rates[e.name],)) for e in self.entries)
        return replace(self, entries=tuple(entries))

    def check(self) -> Plan:
        """Returns the plan itself; raises UsageError for values that are not possible."""
        wrong = {
            f"match '{self.match}'": self.match not in MATCHES,
            f"seeds {self.seeds}": not 1 <= self.seeds <= MOST_RUNS,
            f"first_seed {self.first_seed}": self.first_seed < 1,
            f"evaluations {self.evaluations}": not 1 <= self.evaluations <= MOST_RUNS,
            f"sweep_share {self.sweep_share}": not 0 < self.sweep_share <= 1,
            f"tolerance {self.tolerance}": not 0 < self.tolerance < 1,
            f"target {self.target}": not 0 <= self.target <= MOST_PARAMETERS,
            counted(self.tune, "trial"): not 0 <= self.tune <= MOST_RUNS,
            f"extend {self.extend}": not 0 <= self.extend <= MOST_RUNS,
            f"rates {list(self.rates)}": not self.rates or not _are_rates(self.rates),
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise UsageError(
                    f"A comparison cannot have {what}.",
                    next_step=f"match is one of {', '.join(MATCHES)}; seeds, first_seed, "
                    "evaluations and rates are above 0, no rate twice; tune is a number of trials; "
                    f"no number of runs is above {MOST_RUNS:,}; sweep_share and tolerance are "
                    "shares.",
                )
        for entry in self.entries:
            if entry.rates is not None and (not entry.rates or not _are_rates(entry.rates)):
                raise UsageError(
                    f"Entry {entry.name} cannot have the rates {list(entry.rates)}.",
                    next_step="Rates are numbers above 0, each given once.",
                )
        for key in (*self.base, *(key for e in self.entries for key in e.settings)):
            if key in RESERVED:
                raise UsageError(
                    f"{key} is set by the comparison itself.",
                    next_step=f"Leave it out; {RESERVED[key]}.",
                )
        if self.match == "time" and not 0 < self.seconds < math.inf:
            raise UsageError(
                "Matching by time needs to know how long a run may train.",
                next_step="Add --time-limit SECONDS.",
            )
        if not self.entries:
            raise UsageError(
                "Nothing to compare.",
                next_step=f"Add --models, of: {', '.join(registry.model_names())}.",
            )
        return self


def _are_rates(rates: Sequence[Any]) -> bool:
    numbers = [r for r in rates if isinstance(r, int | float) and not isinstance(r, bool) and r > 0]
    return len(set(numbers)) == len(rates)


def select_entries(entries: Sequence[Entry], names: Sequence[str]) -> tuple[Entry, ...]:
    """Entries by their names or by their models' names. Raises UsageError for unknown names.

    A registered model without an entry becomes an entry with its defaults.
    """
    chosen: list[Entry] = []
    for name in names:
        own = [e for e in entries if e.name == name]
        model = registry.canonical(name)
        found = own or [e for e in entries if e.model == model]
        if not found and model is not None:
            found = [Entry(name, registered_name(name))]
        if not found:
            raise _unknown_model(name, [e.name for e in entries])
        chosen += [e for e in found if e not in chosen]
    return tuple(chosen)


def parse_variant(text: str) -> Entry:
    """An entry from `NAME=MODEL,KEY=VALUE,...`.

    A key without a section is the model's: `ngt-8=ngt,coords=8` sets `model.coords`.
    """
    head, *settings = text.split(",")
    name, equals, model = head.partition("=")
    if not equals or not name.strip() or not model.strip():
        raise UsageError(
            f"--variant {text}: not of the form NAME=MODEL,KEY=VALUE,...",
            next_step="For example: --variant ngt-8=ngt,coords=8",
        )
    given: dict[str, Any] = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"--variant {text}: '{item}' is not of the form key=value.",
                next_step="For example: --variant ngt-8=ngt,coords=8",
            )
        given[key.strip()] = scalar(value.strip())
    return Entry(name.strip(), registered_name(registry.use(model.strip())), settings=dotted(given))


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keys without a section become model keys; tables like [base.model] become dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key in SECTIONS and isinstance(value, Mapping):
            flat |= {f"{key}.{leaf}": item for leaf, item in value.items()}
        else:
            flat[key if "." in key else f"model.{key}"] = value
    return flat


def shared_settings(
    plan: Mapping[str, Any], given: Mapping[str, Any], sets: Iterable[str]
) -> dict[str, Any]:
    """A plan's base, overridden by dotted settings and by "key=value". A warm-up that is too long
    for a given number of steps is shortened."""
    shared = dict(plan) | dict(given)
    typed = dotted({item.key: item.value for item in read_sets(sets)})
    steps, warmup = given.get("training.steps"), shared.get("training.warmup")
    if steps is not None and warmup is not None and warmup > steps // 5:
        shared["training.warmup"] = steps // 10
    return shared | typed


def registered_name(name: str) -> str:
    """A registered model's name in the registry's spelling. Raises UsageError for anything else."""
    known = registry.canonical(name)
    if known is not None:
        return known
    raise _unknown_model(name, [])


def _unknown_model(name: str, entries: list[str]) -> UsageError:
    if plugins.is_file(name):  # of a plan: only what was typed may be run
        return UsageError(
            f"The model '{name}' is a class in a Python file that was not named.",
            next_step=f"Set {plugins.VARIABLE}=path/to/{Path(name).name} in the environment.",
        )
    if name.endswith(CHECKPOINT_SUFFIX) or existing(name).exists():
        return UsageError(
            f"'{name}' is a path; here new models are built, by their names.",
            next_step=f"Use names of models: {', '.join(registry.model_names())}. "
            "`holo eval` scores checkpoints.",
        )
    known = list(dict.fromkeys([*entries, *registry.model_names()]))
    return UsageError(f"There is no model '{name}'.", next_step=nearest(name, known))


# -- plan files -----------------------------------------------------------------------------------


def _plans_folder(kind: str) -> Path:
    folder = registry.configs_folder() / "bench"
    return folder if kind == "compare" else folder / kind


def plan_names(kind: str) -> list[str]:
    """The plans that come with holo for `holo bench KIND`."""
    return sorted(path.stem for path in _plans_folder(kind).glob("*.toml"))


def plan_path(kind: str, name: str) -> Path:
    """The file of a plan that comes with holo. Raises UsageError for an unknown name."""
    names = plan_names(kind)
    if name not in names:
        raise UsageError(
            f"There is no plan '{name}' for `holo bench {kind}`.", next_step=nearest(name, names)
        )
    return _plans_folder(kind) / f"{name}.toml"


def named_plan(name: str) -> Plan:
    """A plan that comes with holo."""
    return read_plan(plan_path("compare", name))


def read_plan(path: Path) -> Plan:
    """Parse a plan file. Raises UsageError naming the file and the key that is wrong."""
    values, entries, _ = load_plan(path, {f.name for f in fields(Plan)} - {"entries"})
    check_types(values, Plan, path)
    own = [entry.name for entry in entries]
    for name in values.get("main", ()):
        if name not in own:
            raise UsageError(
                f"{path}: main names '{name}', and there is no [entry.{name}].",
                next_step=nearest(str(name), own),
            )
    return Plan(**values, entries=entries)


def load_plan(
    path: Path, known: set[str], tables: str = ""
) -> tuple[dict[str, Any], tuple[Entry, ...], dict[str, Any]]:
    """The plain keys of a plan file, which must be `known`; its entries; and the tables
    [TABLES.NAME] unchanged. Lists become tuples, the base gets dotted keys."""
    try:
        table = read_toml(path)
    except FileNotFoundError:
        raise UsageError(f"There is no plan file '{path}'.") from None
    except IsADirectoryError:
        raise UsageError(f"'{path}' is a folder, not a plan file.") from None
    except (ParseError, OSError) as error:
        raise UsageError(f"{path}: not a plan in TOML: {error}.") from None
    entries, more = table.pop("entry", {}), table.pop(tables, {})
    for key in table:
        if key not in known:
            raise UsageError(
                f"{path}: unknown key '{key}'.",
                next_step=nearest(key, filter(None, {*known, "entry", tables})),
            )
    if not isinstance(entries, Mapping) or not isinstance(more, Mapping):
        raise UsageError(f"{path}: entries are tables, as in [entry.vanilla].")
    values = {k: _tuples(v) for k, v in table.items()}
    values["base"] = dotted(values.get("base", {}))
    return values, tuple(_read_entry(path, n, given) for n, given in entries.items()), dict(more)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def check_types(values: Mapping[str, Any], plan: type, path: Path) -> None:
    """Raises UsageError for a value of another type than the plan's default."""
    for f in fields(plan):
        if f.name not in values or f.name == "base":
            continue
        expected = type(f.default)
        allowed = (int, float) if expected is float else expected
        if not isinstance(values[f.name], allowed) or isinstance(values[f.name], bool):
            raise UsageError(f"{path}: {f.name} cannot be {values[f.name]!r}.")


def _read_entry(path: Path, name: str, given: Any) -> Entry:
    known = ("model", "preset", "recipe", "set", "rates", "match", "vary")
    if not isinstance(given, Mapping):
        raise UsageError(f"{path}: [entry.{name}] must be a table.")
    for key in given:
        if key not in known:
            raise UsageError(
                f"{path}: unknown key '{key}' in [entry.{name}].", next_step=nearest(key, known)
            )
    match = given.get("match")
    if match not in (None, "none"):
        raise UsageError(
            f'{path}: match of [entry.{name}] can only be "none"; leave it out to use the plan\'s.'
        )
    return Entry(
        name,
        registered_name(str(given.get("model", name))),
        preset=given.get("preset"),
        recipe=given.get("recipe"),
        settings=dotted(given.get("set", {})),
        rates=_list_of(path, name, given, "rates"),
        match=match,
        vary=_list_of(path, name, given, "vary"),
    )


def _list_of(path: Path, name: str, given: Mapping[str, Any], key: str) -> tuple[Any, ...] | None:
    if key in given and not isinstance(given[key], list):
        raise UsageError(f"{path}: {key} of [entry.{name}] must be a list, as in [{given[key]!r}].")
    return tuple(given[key]) if key in given else None
