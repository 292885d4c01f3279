"""Config: which layer wins, what provenance says, and how slips are answered."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import Field

from holo_cli import registry
from holo_cli.config.model_schema import BackboneConfig, ModelConfig
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.config.sources import scalar
from holo_cli.errors import UsageError


class Vanilla(BackboneConfig):
    norm: Literal["rms", "layer"] = "rms"


class Gravity(ModelConfig):
    kernel: Literal["gravity", "gaussian"] = "gravity"
    radius: float | None = Field(None, gt=0)


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's configs/ with two models, two recipes and a few presets."""
    folder = tmp_path / "configs"
    files = {
        "recipes/modern.toml": '[training]\noptimizer = "muon"\nlr = 0.02\n[model]\nnorm = "rms"',
        "recipes/classic.toml": '[training]\noptimizer = "adamw"\nlr = 0.001\n'
        '[model]\nnorm = "layer"',
        "vanilla/tiny.toml": "[model]\nlayers = 2\nheads = 2\nwidth = 32\n[training]\nsteps = 200\n"
        "[recipe.classic.training]\nlr = 0.005\nwarmup = 7",
        "vanilla/mini.toml": 'recipe = "classic"\n[model]\nlayers = 6',
        "ngt/tiny.toml": "[model]\nlayers = 2",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    classes: dict[str, type[ModelConfig]] = {"vanilla": Vanilla, "ngt": Gravity}
    monkeypatch.setattr(registry, "configs_folder", lambda: folder)
    monkeypatch.setattr(registry, "model_names", lambda: tuple(classes))
    monkeypatch.setattr(registry, "config_class", lambda name: classes[name])
    monkeypatch.chdir(tmp_path)
    return folder


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def lr(**kwargs: Any) -> tuple[float, str]:
    resolved = resolve("vanilla", env=kwargs.pop("env", {}), **kwargs)
    return resolved.training.lr, resolved.provenance["training.lr"]


def failure(**kwargs: Any) -> str:
    kwargs.setdefault("env", {})
    kwargs.setdefault("model_name", "vanilla")
    with pytest.raises(UsageError) as caught:
        resolve(**kwargs)
    return str(caught.value)


# -- layers ---------------------------------------------------------------------------------------


def test_without_anything_the_default_preset_and_recipe_are_used(configs: Path) -> None:
    resolved = resolve("vanilla", env={})
    assert (resolved.preset, resolved.recipe) == ("tiny", "modern")
    assert resolved.model.layers == 2
    where = resolved.provenance
    assert where["model.layers"] == "preset tiny (configs/vanilla/tiny.toml)"
    assert where["training.lr"] == "recipe modern"
    assert where["training.clip"] == where["preset"] == where["recipe"] == "default"
    assert set(resolved.values()) <= set(where)


def test_any_subset_of_layers_is_won_by_the_last(configs: Path) -> None:
    """Every combination of preset, file, environment, --set and flag, in the order of power."""
    (configs / "vanilla" / "with.toml").write_text("[training]\nlr = 0.1", encoding="utf-8")
    file = write("my.toml", "[training]\nlr = 0.2")
    layers: list[tuple[dict[str, Any], float, str]] = [
        ({"preset": "with"}, 0.1, "preset with (configs/vanilla/with.toml)"),
        ({"file": file}, 0.2, "file my.toml"),
        ({"env": {"HOLO_TRAINING_LR": "0.3"}}, 0.3, "env HOLO_TRAINING_LR"),
        ({"sets": ["training.lr=0.4"]}, 0.4, "--set"),
        ({"flags": {"training.lr": 0.5}}, 0.5, "--lr"),
    ]
    for size in range(1, len(layers) + 1):
        for chosen in itertools.combinations(layers, size):
            kwargs = {k: v for layer, _, _ in chosen for k, v in layer.items()}
            assert lr(**kwargs) == chosen[-1][1:]


def test_a_recipes_own_table_of_a_preset_counts_only_under_that_recipe(configs: Path) -> None:
    assert resolve("vanilla", env={}).training.warmup == 50
    classic = resolve("vanilla", recipe="classic", env={})
    assert (classic.training.warmup, classic.training.lr) == (7, 0.005)
    assert classic.training.optimizer == "adamw"
    assert isinstance(classic.model, Vanilla)
    assert classic.model.norm == "layer"


def test_a_recipe_comes_from_the_flag_then_the_file_then_the_preset(configs: Path) -> None:
    file = write("my.toml", 'recipe = "modern"')
    assert resolve("vanilla", "mini", env={}).recipe == "classic"
    assert resolve("vanilla", "mini", file=file, env={}).recipe == "modern"
    assert resolve("vanilla", "mini", "classic", file=file, env={}).recipe == "classic"


def test_model_keys_of_a_recipe_that_a_model_lacks_are_left_out(configs: Path) -> None:
    assert not hasattr(resolve("ngt", env={}).model, "norm")


def test_a_file_can_name_its_model_and_preset(configs: Path) -> None:
    resolved = resolve(file=write("my.toml", 'name = "vanilla"\npreset = "mini"'), env={})
    assert (resolved.model_name, resolved.preset, resolved.model.layers) == ("vanilla", "mini", 6)
    assert resolved.provenance["preset"] == "file my.toml"


def test_a_flag_that_is_not_given_changes_nothing(configs: Path) -> None:
    assert lr(flags={"training.lr": None}) == (0.02, "recipe modern")


def test_few_steps_shorten_the_warmup_but_never_one_that_was_asked_for(configs: Path) -> None:
    resolved = resolve("vanilla", flags={"training.steps": 20}, env={})
    assert resolved.training.warmup == 2
    assert resolved.provenance["training.warmup"] == "shortened from 50 to fit --steps"
    text = failure(sets=["training.steps=20", "training.warmup=30"])
    assert "training.warmup (30) is longer than training.steps (20)" in text
    assert "training.warmup from --set" in text


# -- values typed as text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("12", 12),
        ("true", True),
        ("'a b'", "a b"),
        ("cuda:0", "cuda:0"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
        ("[1, 2]", [1, 2]),
    ],
)
def test_scalar(text: str, value: object) -> None:
    assert scalar(text) == value


def test_a_text_that_looks_like_a_number_stays_a_text_where_one_is_wanted(configs: Path) -> None:
    assert resolve("vanilla", sets=["data.path=2024"], env={}).data.path == "2024"
    assert resolve("vanilla", env={"HOLO_DATA_PATH": "007"}).data.path == "007"


def test_none_switches_an_optional_value_off(configs: Path) -> None:
    file = write("my.toml", "[training]\ntarget_loss = 1.5")
    assert resolve("vanilla", file=file, env={}).training.target_loss == 1.5
    off = resolve("vanilla", file=file, sets=["training.target_loss=none"], env={})
    assert off.training.target_loss is None


# -- slips ----------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_place_and_the_nearest(configs: Path) -> None:
    text = failure(file=write("my.toml", "[training]\nlrr = 1"))
    assert text == "training.lrr (in my.toml): unknown key. Did you mean 'training.lr'?"
    assert "Did you mean 'training.lr'?" in failure(sets=["lr=1"])
    assert "Did you mean 'model.width'?" in failure(sets=["training.width=1"])
    assert "Did you mean 'training.steps'?" in failure(sets=["trainning.steps=1"])
    assert "Known: data.balance, data.document_mask, data.path, data.sets, data.verify." in failure(
        sets=["data.qqqq=1"]
    )


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("training.lr=abc", "training.lr = 'abc' (--set): not a number."),
        ("training.lr=-1", "training.lr = -1 (--set): must be greater than 0, at most 1e+30."),
        ("training.lr=inf", "training.lr = inf (--set): not a finite number."),
        ("training.lr=true", "training.lr = True (--set): not a number."),
        ("training.steps=10.5", "training.steps = 10.5 (--set): not a whole number."),
        ("training.steps=true", "training.steps = True (--set): not a whole number."),
        ("training.compile=perhaps", "training.compile = 'perhaps' (--set): not true or false."),
        ("model.dropout=1", "model.dropout = 1 (--set): must be at least 0 but less than 1."),
        ("model.layers=0", "model.layers = 0 (--set): must be from 1 to 1000."),
        (
            "model.mlp_ratio=0",
            "model.mlp_ratio = 0 (--set): must be greater than 0, at most 100000.",
        ),
        ("model.context=1", "model.context = 1 (--set): must be from 2 to 1000000000."),
        (
            "model.canon=CA",
            "model.canon (CA) must be letters of ACD in this order, each at most once; empty is "
            "off. Where they are set: model.canon from --set.",
        ),
        ("data.sets=5", "data.sets = 5 (--set): not a list, as in ['ko', 'en']."),
    ],
)
def test_a_wrong_value_is_named_with_its_place(configs: Path, setting: str, sentence: str) -> None:
    assert failure(sets=[setting]) == sentence


@pytest.mark.parametrize("name", sorted(registry.built_in()))
def test_every_number_of_a_model_has_a_range_that_is_said(name: str) -> None:
    """No value is so large that training would only show it as a loss that is not a number."""
    for key, field in registry.config_class(name).model_fields.items():
        kinds = set(get_args(field.annotation) or (field.annotation,)) & {int, float}
        if not kinds or get_origin(field.annotation) is tuple or key == "vocab_size":
            continue
        for value in ("-1e30", "1e30") if float in kinds else ("-9", "99999999999"):
            text = failure(model_name=name, sets=[f"model.{key}={value}"])
            assert re.match(rf"model\.{key} .*(must be |the share of )", text), text
            assert re.search(r"(from|at least|at most|above|than) -?\d", text), text


def test_a_wrong_choice_names_the_choices_and_the_nearest(configs: Path) -> None:
    text = failure(sets=["training.schedule=cosin"])
    assert "not one of constant-cooldown, cosine. Did you mean 'cosine'?" in text


def test_keys_that_do_not_fit_each_other_say_where_each_came_from(configs: Path) -> None:
    text = failure(sets=["model.width=33"])
    assert "model.width (33) must be a multiple of model.heads (2)" in text
    assert "model.width from --set, model.heads from preset tiny" in text


def test_the_environment_is_checked_by_name(configs: Path) -> None:
    text = failure(env={"HOLO_TRAINING_LRR": "1"})
    assert "HOLO_TRAINING_LRR" in text
    assert "HOLO_TRAINING_LR'?" in text
    text = failure(env={"HOLO_TRAINING_LR": "abc"})
    assert text == "training.lr = 'abc' (env HOLO_TRAINING_LR): not a number."
    assert resolve("vanilla", env={"HOLO_DEBUG": "1", "PATH": "x"}).training.lr == 0.02


def test_the_config_of_another_model_fails_in_one_sentence(configs: Path) -> None:
    text = failure(file=write("my.toml", 'name = "ngt"'))
    assert text.startswith("my.toml is a config of model 'ngt', not of 'vanilla'.")
    text = failure(file=write("my.toml", '[model]\nkernel = "gaussian"'))
    assert "model.kernel (in my.toml): a key of model 'ngt', not of 'vanilla'." in text


def test_the_vocabulary_is_the_tokenizers(configs: Path) -> None:
    assert "set from the tokenizer" in failure(sets=["model.vocab_size=5"])
    assert resolve("vanilla", flags={"model.vocab_size": 5}, env={}).model.vocab_size == 5


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[training]\nlr = \n", "line 2"),
        ("[training]\nlr = 1\nlr = 2\n", "line 3"),
        ("trainnig = 1", "unknown top-level key 'trainnig'. Did you mean 'training'?"),
        ("training = 1", "training must be a table"),
        ("name = 1", "name must be a text"),
        ("[recipe.clasic.training]\nlr = 1", "There is no recipe 'clasic'. Did you mean 'classic'"),
        ("[recipe.classic.trainin]\nlr = 1", "unknown table [recipe.classic.trainin]"),
        ('recipe = "modren"', "There is no recipe 'modren'. Did you mean 'modern'?"),
        ('preset = "tin"', "no preset 'tin'. Did you mean 'tiny'?"),
    ],
)
def test_a_malformed_file_says_what_and_where(configs: Path, text: str, part: str) -> None:
    assert part in failure(file=write("my.toml", text))


def test_files_that_are_missing_or_no_text(configs: Path) -> None:
    assert "There is no config file 'no.toml'" in failure(file="no.toml")
    Path("bad.toml").write_bytes(b"# \xb0\xa1\n")
    assert "bad.toml cannot be read: not UTF-8 at byte 2. Save the file as UTF-8." in failure(
        file="bad.toml"
    )
    Path("mark.toml").write_bytes(b"\xef\xbb\xbf[training]\nlr = 0.5")
    assert lr(file="mark.toml") == (0.5, "file mark.toml")


def test_set_needs_a_key_and_a_value(configs: Path) -> None:
    assert "not of the form key=value" in failure(sets=["training.lr"])


def test_no_model_at_all(configs: Path) -> None:
    assert "--model" in failure(model_name=None)


# -- what a checkpoint keeps ----------------------------------------------------------------------


def test_to_dict_and_back(configs: Path) -> None:
    resolved = resolve("ngt", sets=["model.radius=2"], flags={"model.vocab_size": 99}, env={})
    stored = json.loads(json.dumps({**resolved.to_dict(), "step": 3}))
    assert Resolved.from_dict(stored) == resolved


def test_a_stored_config_with_an_unknown_key_fails_by_name(configs: Path) -> None:
    stored = resolve("vanilla", env={}).to_dict()
    stored["config"]["training"]["from_the_future"] = 1
    with pytest.raises(UsageError, match=r"training.from_the_future \(checkpoint\): unknown key"):
        Resolved.from_dict(stored)


def test_a_removed_key_is_dropped_where_it_was_off_and_refused_with_the_reason_where_not() -> None:
    stored = resolve("brain-v1", env={}).to_dict()
    assert "inhibition" not in stored["config"]["model"]
    stored["config"]["model"]["inhibition"] = False
    assert Resolved.from_dict(stored) == resolve("brain-v1", env={})
    stored["config"]["model"]["inhibition"] = True
    with pytest.raises(UsageError, match=r"model.inhibition \(checkpoint\): removed, since colum"):
        Resolved.from_dict(stored)
    with pytest.raises(UsageError, match=r"model.inhibition \(--set\): removed, since columns"):
        resolve("brain-v1", sets=["model.inhibition=false"], env={})


@pytest.mark.parametrize(
    ("model", "off", "on", "says"),
    [
        ("holographic", {"binding_shape": "1d"}, {"binding_shape": "2d"}, "since binding over a"),
        ("brain-v1", {"dense_start": 0.0}, {"dense_start": 0.8}, "since winners that were few"),
        ("brain-v1", {"predictor": 0}, {"predictor": 16}, "since choosing among predicted"),
        # how many candidates a predictor that is off would choose: nothing, whatever it says
        ("brain-v1", {"predictor_share": 0.5}, {"predictor": 4, "predictor_share": 0.5}, "since"),
    ],
)
def test_what_earlier_versions_stored_is_read_without_the_forms_that_lost(
    model: str, off: dict[str, Any], on: dict[str, Any], says: str
) -> None:
    stored = resolve(model, env={}).to_dict()
    kind = registry.config_class(model)
    assert not stored["config"]["model"].keys() & kind.removed.keys()
    before = stored["config"]["model"]
    assert kind.removed_in(before | off) == []
    assert kind.removed_in(before | on) == list(on)
    stored["config"]["model"] = before | off
    assert Resolved.from_dict(stored) == resolve(model, env={})
    stored["config"]["model"] = before | on
    key = next(iter(on))
    with pytest.raises(UsageError, match=rf"model.{key} \(checkpoint\): removed, {says}"):
        Resolved.from_dict(stored)


def test_replace_changes_checks_and_remembers(configs: Path) -> None:
    resolved = resolve("vanilla", flags={"model.vocab_size": 9}, env={})
    longer = resolved.replace({"training.steps": 900})
    assert (longer.training.steps, longer.provenance["training.steps"]) == (900, "--steps")
    assert longer.model == resolved.model
    with pytest.raises(UsageError, match=r"training.steps = 0 \(--steps\)"):
        resolved.replace({"training.steps": 0})
    with pytest.raises(UsageError, match=r"Did you mean 'training\.steps'"):
        resolved.replace({"training.stepz": 1})


def test_defaults_that_depend_on_other_keys_follow_them_unless_set() -> None:
    resolved = resolve("holographic", sets=["model.tied_start=true"], env={})
    learned = resolved.replace({"model.phases": "learned"})
    assert (learned.values()["model.plates"], learned.values()["model.tied_start"]) == (1, True)
    assert learned.provenance["model.plates"] == "default"
    back = learned.replace({"model.phases": "gaussian"})
    assert back.model == resolved.model
    with pytest.raises(UsageError, match=r"phases \(gaussian\) is for model.binding phasor"):
        back.replace({"model.binding": "hrr"})  # both were asked for


def test_a_config_stored_before_a_key_existed_resumes_as_it_was_trained() -> None:
    """A run from before the learned query gain has no such parameters in its checkpoint."""
    stored = resolve("vanilla", "tiny").to_dict()
    del stored["config"]["model"]["query_gain"]
    del stored["config"]["model"]["canon"]
    again = Resolved.from_dict(stored)
    assert again.values()["model.query_gain"] is False
    assert again.values()["model.canon"] == ""
