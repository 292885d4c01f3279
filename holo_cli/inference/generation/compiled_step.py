"""A step of decoding as one graph for all positions, made by torch.compile.

The state is in buffers that neither grow nor move (`layers/static.py`), so nothing that the
compiler sees changes from token to token. On CUDA the graph is recorded and replayed
(`mode="reduce-overhead"`, CUDA graphs): a step is one launch instead of some hundreds. Attention
reads the whole buffer at every position, the part that is not filled with a weight of zero.

Logits are those of a step as it is, but for rounding. Legend: B rows, C width, V vocabulary.
"""

from __future__ import annotations

import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holo_cli.errors import UsageError
from holo_cli.layers.static import buffers, plain_state, static_state
from holo_cli.models.base import LanguageModel, State

if TYPE_CHECKING:
    from holo_cli.inference.generation.sampling import SamplingConfig

StepFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
BACKEND = "inductor"
LEAST_ROOM = 256  # positions, where the context has no limit


def check_compiling(model: LanguageModel, config: SamplingConfig) -> None:
    """Raises UsageError where the model's steps cannot be one graph."""
    if config.draft_layers:
        raise UsageError(
            f"--draft-layers {config.draft_layers} cannot be combined with --compile: a guess is "
            "no step of its own.",
            next_step="Omit one of them.",
        )
    reason = model.step_obstacle()
    if reason is not None:
        raise _refused(reason)


def _refused(reason: str) -> UsageError:
    return UsageError(
        f"This model cannot decode compiled (--compile): {reason}.", next_step="Omit --compile."
    )


def room_for(model: LanguageModel, length: int) -> int:
    """Positions that buffers need for texts of `length` tokens: the context, or where that has no
    limit the next power of two, so that a growing conversation rarely needs another graph."""
    limit = model.context_limit
    return limit if limit is not None else max(LEAST_ROOM, 1 << (length - 1).bit_length())


class CompiledStep:
    """Steps of one token of each row, for states of the kind and number of rows of `state`.

    `mode` sets what a step is computed in. `backend` is torch.compile's; None: inductor. `seconds`
    is what compiling took. One user at a time: `take` says who, and gives the state back to the one
    before. Raises UsageError where the step cannot be compiled here.
    """

    def __init__(
        self,
        model: LanguageModel,
        state: State,
        room: int,
        mode: Callable[[], AbstractContextManager[None]],
        backend: str | None = None,
    ) -> None:
        self.model, self.room, self._mode = model, room, mode
        self._user: weakref.ref[Any] | None = None
        began = time.perf_counter()
        with self._entered():
            self._state: State = static_state(state, room)
            rows = next(buffers(self._state)).shape[0]
            self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=model.device)
        self._cuda = model.device.type == "cuda"
        if self._cuda:
            for buffer in (self._tokens, *buffers(self._state)):
                torch._dynamo.mark_static_address(buffer)
        step = _step(model, self._state)
        options: dict[str, Any] = {"backend": backend or BACKEND}
        if self._cuda and backend is None:
            options["mode"] = "reduce-overhead"
        self._compiled: StepFunction = torch.compile(step, fullgraph=True, dynamic=False, **options)
        self._warm_up(step)
        self.seconds = time.perf_counter() - began

    def take(self, user: object, state: State) -> None:
        """Continue `state`, for `user` from now on."""
        before = self.user()
        if before is not None and before is not user:
            before.restore(self.value())
        with self._entered():
            fresh = static_state(state, self.room)
            for old, new in zip(buffers(self._state), buffers(fresh), strict=True):
                old.copy_(new)
        self._user = weakref.ref(user)

    def user(self) -> Any:
        """Whose state this is; None: nobody's."""
        return None if self._user is None else self._user()

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1) next tokens -> logits (B, V) and hidden states (B, C) after them."""
        with self._entered():
            self._tokens.copy_(tokens)
            return self._replayed(self._compiled)

    def value(self) -> State:
        """The state after the tokens read, a copy that is continued as any other."""
        with self._entered():
            copied: State = plain_state(self._state)
        return copied

    def _replayed(self, step: StepFunction) -> tuple[Tensor, Tensor]:
        if not self._cuda:
            return step(self._tokens)
        torch.compiler.cudagraph_mark_step_begin()
        logits, hidden = step(self._tokens)
        return logits.clone(), hidden.clone()  # the next step writes to the same memory

    def _warm_up(self, step: StepFunction) -> None:
        """Compile, on a state of zeros."""
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        # as it is first: tables that a model keeps are made outside the graph
        steps = [step, *[self._compiled] * (3 if self._cuda else 1)]
        try:
            with self._entered(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for one in steps:
                    for buffer in buffers(self._state):
                        buffer.zero_()
                    self._replayed(one)
        except (TorchDynamoException, InductorError, ImportError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UsageError(
                f"torch.compile cannot make a graph of this model's decoding here: {reason}",
                next_step="Omit --compile.",
            ) from error

    @contextmanager
    def _entered(self) -> Iterator[None]:
        # buffers are written by a graph that knows them as ordinary tensors
        with self._mode(), torch.inference_mode(False), torch.no_grad():
            yield


def _step(model: LanguageModel, state: State) -> StepFunction:
    def step(tokens: Tensor) -> tuple[Tensor, Tensor]:
        x, after = model.step_hidden(tokens, state)
        logits = model.head(x[:, -1])
        for old, new in zip(buffers(state), buffers(after), strict=True):
            if new is old:  # a cache, written where it is
                continue
            if new.shape != old.shape:
                reason = "its decoding state grows from token to token"
                raise _refused(reason)
            old.copy_(new)
        return logits, x[:, -1]

    # code of its own: what is compiled is remembered by code, and refused beyond a few forms of it
    return types.FunctionType(
        step.__code__.replace(), step.__globals__, step.__name__, None, step.__closure__
    )
