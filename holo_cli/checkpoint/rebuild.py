"""From a checkpoint back to a model, by its header alone.

The config in the header is checked against the tensors in the file before any memory is taken: the
model is first built on the meta device, where tensors have shapes but no storage, and every name
and shape must agree. Only then it is built for real, and random initialisation is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from holo_cli import plugins, registry
from holo_cli.checkpoint.find import find_checkpoint
from holo_cli.checkpoint.header import Header, complaint, damaged, short_line
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile
from holo_cli.checkpoint.stored import StoredTensors
from holo_cli.checkpoint.tensor_bytes import not_finite
from holo_cli.config.model_schema import ModelConfig
from holo_cli.errors import CheckpointError, HoloError, nearest
from holo_cli.paths import CHECKPOINTS

if TYPE_CHECKING:
    from holo_cli.data.tokenizers import Tokenizer
    from holo_cli.models.base import LanguageModel

# Tables that a model computes and does not save may take this much, or 4 times the file.
_MAX_TABLES = 2 << 30


def load_model(
    path_or_run: str | Path | None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    root: Path = CHECKPOINTS,
    *,
    finite: bool = True,
) -> tuple[LanguageModel, Tokenizer, Header]:
    """The model in eval mode, its tokenizer and the header, from a path, a run's name or None.

    `dtype` None keeps the model's own (float32), whatever the file holds; another one converts
    parameters and buffers. `finite` False loads weights that are NaN or infinite too, to look
    at. Raises CheckpointError for everything that can be wrong with the file.
    """
    with TensorFile(find_checkpoint(path_or_run, root)) as file:
        config = checked_config(file)
        tokenizer = file.tokenizer()
        if tokenizer.vocab_size > config.vocab_size:
            raise damaged(
                file.path,
                f"its tokenizer has {tokenizer.vocab_size} tokens, its model {config.vocab_size}",
            )
        # A caller's random state is not touched, whatever the constructor draws.
        with torch.random.fork_rng(devices=[]), _WithoutInitialisation():
            model = registry.build_model(file.header.model, config)
        if dtype is not None:
            model.to(dtype)
        wrong: dict[str, int] = {}
        with torch.no_grad():
            for name, target in model.state_dict().items():
                tensor = file.read(MODEL_PREFIX + name)
                if finite and (count := not_finite(tensor)):
                    wrong[MODEL_PREFIX + name] = count
                target.copy_(tensor)
        check_finite(file.path, wrong)
        return model.to(device).eval(), tokenizer, file.header


def load_training(path: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """The header and every tensor of a checkpoint, checked against its config, on the CPU.

    What of the training state is there tells the header's `kind`: only "last" holds all of it.
    """
    with TensorFile(Path(path)) as file:
        checked_config(file)
        tensors = file.read_all()
        counts = {n: not_finite(t) for n, t in tensors.items() if n.startswith(MODEL_PREFIX)}
        check_finite(file.path, {name: count for name, count in counts.items() if count})
        return file.header, tensors


def open_training(path: str | Path) -> tuple[Header, StoredTensors]:
    """The same with tensors that are read on demand; the weights are checked as they are read."""
    file = TensorFile(Path(path))
    checked_config(file)
    return file.header, StoredTensors(file)


def check_finite(path: Path, counts: Mapping[str, int]) -> None:
    """Raises CheckpointError if there are tensors with values that are NaN or infinite."""
    if not counts:
        return
    name, count = next(iter(counts.items()))
    more = f" and of {len(counts) - 1} more tensors" if len(counts) > 1 else ""
    raise CheckpointError(
        f"The checkpoint {path} cannot be used: {count:,} values of '{name}'{more} are NaN or "
        "infinite.",
        next_step=f"`holo inspect {path}` lists them; use an earlier checkpoint of the run.",
    )


def checked_config(file: TensorFile) -> ModelConfig:
    """The model's config, once every tensor of the file is known to fit it. Allocates nothing."""
    header = file.header
    config = _config(file.path, header)
    # some constructors compute tables in Python, which takes for ever for an absurd width
    stored = sum(info.numel for info in file.container.tensors.values())
    if config.vocab_size * config.width > stored:
        raise damaged(file.path, "its config asks for more weights than the file has")
    try:
        model = shapes_only(header.model, config)
    except ValueError as error:
        raise damaged(file.path, f"no model fits its config ({error})") from error
    expected = {MODEL_PREFIX + name: tensor for name, tensor in model.state_dict().items()}
    _compare(file, expected)
    _check_tables(file, model)
    return config


def shapes_only(name: str, config: ModelConfig) -> LanguageModel:
    """The model without storage, for its shapes. Raises ValueError for a config that has none."""
    try:
        with torch.device("meta"), _NothingReal():
            return registry.build_model(name, config)
    # An absurd config fails somewhere inside torch: too many elements, an index out of range.
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError, HoloError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(reason) from error


def _config(path: Path, header: Header) -> ModelConfig:
    need_model(path, header)
    kind = registry.config_class(header.model)
    try:
        return header.at_depth(kind.from_stored(header.config["model"]))
    except ValidationError as error:
        for key in kind.removed_in(header.config["model"]):
            raise CheckpointError(
                f"The checkpoint {path} uses model.{key}, which was removed, "
                f"{kind.removed[key].why}.",
                next_step="Use an older version of holo for it.",
            ) from error
        made_by = short_line(header.versions.get("holo", "unknown"))
        raise CheckpointError(
            f"The checkpoint {path} has a config that does not fit the model '{header.model}': "
            f"{short_line(complaint(error))}.",
            next_step=f"It was written by holo {made_by}: use that version or a newer one.",
        ) from error
    except ValueError as error:
        raise damaged(path, f"its model is {error}") from error


def need_model(path: Path, header: Header) -> None:
    """Raises CheckpointError, with what is needed, where the model of a header is not here."""
    if registry.canonical(header.model) is not None:
        return
    what, hint = plugins.missing(header.model, header.needs)
    hint = hint or (
        f"{nearest(header.model, registry.model_names())} "
        "A newer holo may know it: pip install --upgrade holo-cli"
    )
    raise CheckpointError(f"The checkpoint {path} {short_line(what)}.", next_step=short_line(hint))


def _names(names: Iterable[str]) -> str:
    first, *more = sorted(names)
    return f"'{first}'" + (f" (and {len(more)} more)" if more else "")


def _compare(file: TensorFile, expected: dict[str, Tensor]) -> None:
    shapes = {name: s for name, s in file.shapes.items() if name.startswith(MODEL_PREFIX)}
    if missing := expected.keys() - shapes.keys():
        raise damaged(file.path, f"it lacks the tensor {_names(missing)} that its config asks for")
    if extra := shapes.keys() - expected.keys():
        raise damaged(file.path, f"its config has no place for the tensor {_names(extra)}")
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            raise damaged(
                file.path,
                f"tensor '{name}' has shape {list(shapes[name])} and its config asks for "
                f"{list(tensor.shape)}",
            )
        stored = file.dtype(name)
        if stored.startswith(("F", "BF")) != tensor.is_floating_point():
            raise damaged(file.path, f"tensor '{name}' cannot be of dtype {stored}")


def _check_tables(file: TensorFile, model: nn.Module) -> None:
    """Refuse a config whose unsaved buffers (tables of positions, say) would fill the memory."""
    saved = model.state_dict()
    size = sum(
        b.numel() * b.element_size() for name, b in model.named_buffers() if name not in saved
    )
    stored = sum(info.nbytes for info in file.container.tensors.values())
    if size > max(_MAX_TABLES, 4 * stored):
        raise damaged(file.path, f"its config asks for {size} bytes of tables beside the weights")


_RANDOM: frozenset[Callable[..., Any]] = frozenset(
    {
        Tensor.normal_,
        Tensor.uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.trunc_normal_,
        nn.init.kaiming_uniform_,
        nn.init.kaiming_normal_,
        nn.init.xavier_uniform_,
        nn.init.xavier_normal_,
    }
)
_IN_PLACE = _RANDOM | {Tensor.exp_, Tensor.log_}
_ELEMENTWISE: frozenset[Callable[..., Any]] = frozenset(
    {Tensor.exp, torch.exp, Tensor.expm1, torch.expm1, Tensor.log, torch.log}
)


def _target(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The tensor that an in-place initialisation works on, which it also returns."""
    return args[0] if args else kwargs.get("tensor")


def _joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The shape of what torch.cat would give."""
    shape = list(tensors[0].shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    return torch.empty(shape, dtype=tensors[0].dtype)


class _NothingReal(TorchFunctionMode):
    """Inside `torch.device("meta")`: keeps there also what asks for another device by name.

    Tables are often made on the CPU whatever the model's device, and of the size a config says.
    Generators belong to real devices, and values do not matter here.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("generator", None)
        # Drawing and computing for the meta device, and joining, would import half of torch's
        # compiler, for nothing.
        if func in _IN_PLACE:
            return _target(args, kwargs)
        if func in _ELEMENTWISE:
            like = _target(args, kwargs)
            return torch.empty_like(like if like.is_floating_point() else like.float())
        if func is torch.cat:
            return _joined(*args, **kwargs)
        if func in (torch.randn, torch.rand):
            func = torch.empty
        if func is Tensor.cpu:
            return args[0]
        if func is Tensor.to:
            args = tuple("meta" if isinstance(a, (str, torch.device)) else a for a in args)
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves parameters as `empty` made them: their values come from the file.

    Buffers are still computed, and so is whatever draws from a generator of its own, since
    skipping a draw would change those after it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        target = _target(args, kwargs)
        if func in _RANDOM and isinstance(target, nn.Parameter) and kwargs.get("generator") is None:
            return target
        return func(*args, **kwargs)
