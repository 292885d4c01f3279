"""One long filter per channel instead of a memory: y = q * (h convolved with k * v).

    h_c(t) = Re sum_m g_cm e^{(-r_m + i w_m) t},   t = 0, 1, ...

M decaying oscillations per head, mixed by each of its channels with weights of its own. Over a
whole sequence the convolution is a product of spectra, O(T log T); token by token it is M complex
numbers per channel, z <- e^{-r + i w} z + u, y = Re sum_m g_m z_m. Both signals are padded to 2 T:
the FFT's convolution is circular and would leak the end of the sequence into its beginning.

Legend: B rows, S positions, H heads, e = C / H, M modes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import no_autocast, wide
from holo_cli.models.holographic.binding import positions_last
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.memory import half_lives
from holo_cli.models.holographic.phasors import Pair, phasor
from holo_cli.models.holographic.spectra import from_spectrum, spectrum


class FFTConv(nn.Module):
    """Filters k * v along time and reads with q, all (B, S, H, e)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        heads, modes = config.heads, config.fft_modes
        self.qk_proj = nn.Linear(config.width, 2 * config.width, bias=False)
        self.qk_proj.weight.splits = 2  # type: ignore[attr-defined]
        self.rate = nn.Parameter(torch.empty(heads, modes))  # log of r
        self.turn = nn.Parameter(torch.empty(heads, modes))  # w, radians per token
        self.mix = nn.Parameter(torch.empty(heads, config.head_width, 2 * modes))  # Re g | Im g
        for p in (self.rate, self.turn):
            p.no_muon = True  # type: ignore[attr-defined]

    def finish_initialisation(self) -> None:
        """Half-lives in a geometric series over the modes; about one rotation per half-life, at
        most pi per token; each mode adds the same energy."""
        config = self.config
        lives = half_lives(config.half_life_min, config.half_life_max, config.fft_modes)
        with torch.no_grad():
            for m, life in enumerate(lives):
                self.rate[:, m] = math.log(math.log(2) / life)
                for head in range(config.heads):
                    # heads differ in the rotations of a mode per half-life
                    self.turn[head, m] = min(2 * math.pi * (head + 0.5) / life, math.pi)
            energy = (1 - torch.exp(-2 * self.rate.exp())) / config.fft_modes
            nn.init.normal_(self.mix)
            self.mix.mul_(energy.sqrt().repeat(1, 2)[:, None])

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """x (B, T, C), v (B, T, H, e) -> y of mean square 1, (B, T, H, e)."""
        q, u = self._signals(x, v)
        with no_autocast(x):
            return self._normalized(q * self._convolve(u), v)

    def step(self, x: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the positions after `state`, which is (B, H, e, 2 M): Re z | Im z."""
        q, u = self._signals(x, v)
        with no_autocast(x):
            if u.shape[-1] == 1:
                y, state = self._step_one(u, state)
            else:
                y = self._convolve(u) + self._from_state(state, u.shape[-1])
                state = self._final_state(u, state)
            return self._normalized(q * y, v), state

    def init_state(self, batch: int) -> Tensor:
        w = self.mix
        return torch.zeros(batch, *w.shape, dtype=wide(w.dtype), device=w.device)

    def state_numbers(self) -> int:
        return self.mix.numel()

    def flops(self, length: float) -> float:
        """The filter's two FLOPs per number of `mix` are counted with the weights already; `rate`
        and `turn` are taken out again, since they multiply no token. FFTs are not counted."""
        return -2.0 * (self.rate.numel() + self.turn.numel())

    def decode_flops(self) -> float:
        """Rotate and decay, add, sum."""
        return 7.0 * self.state_numbers()

    def _signals(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """-> q and u = k * v, (H, e, B, S), float32 at least."""
        qk = positions_last(self.qk_proj, x).to(wide(x.dtype))
        q, k = qk.unflatten(0, (2, self.config.heads, -1))
        return q, k * v.permute(2, 3, 0, 1)

    def _normalized(self, y: Tensor, v: Tensor) -> Tensor:
        """(H, e, B, S) -> (B, S, H, e) in v's dtype."""
        return rms_norm(y.to(v.dtype).permute(2, 3, 0, 1).contiguous())

    def _powers(self, like: Tensor, start: int, length: int) -> Pair:
        """e^{(-r + i w) t} for t = start .. start + length - 1, each (H, M, length)."""
        time = torch.arange(start, start + length, dtype=like.dtype, device=like.device)
        magnitude = (-self.rate.to(like.dtype).exp()[..., None] * time).exp()
        rotation = phasor(self.turn.to(like.dtype)[..., None] * time)
        return Pair(magnitude * rotation.re, magnitude * rotation.im)

    def _advance(self, state: Tensor, by: Pair) -> Tensor:
        """State (B, H, e, 2 M) times (H, M, 1), complex."""
        z = Pair(*state.chunk(2, dim=-1)).times(Pair(by.re.mT, by.im.mT))
        return torch.cat(z, dim=-1)

    def _impulse(self, weight: Tensor, length: int) -> Tensor:
        """Re sum_m g_m e^{(-r + i w) t} for g = weight (..., H, e, 2 M) -> (..., H, e, S)."""
        powers = self._powers(weight, 0, length)
        return weight @ torch.cat((powers.re, -powers.im), dim=-2)

    def filter(self, length: int) -> Tensor:
        """h, (H, e, T): the response to one token after 0 .. T - 1 further ones."""
        return self._impulse(self.mix.to(wide(self.mix.dtype)), length)

    def _convolve(self, u: Tensor) -> Tensor:
        """(H, e, B, T) -> the same shape: sum_{s <= t} h(t - s) u_s."""
        return causal_convolution(u, self.filter(u.shape[-1])[:, :, None])

    def _from_state(self, state: Tensor, length: int) -> Tensor:
        """The contribution of everything before to the next positions, (H, e, B, S)."""
        g = Pair(*self.mix.to(state.dtype).chunk(2, dim=-1))
        advanced = Pair(*self._advance(state, self._powers(state, 1, 1)).chunk(2, dim=-1))
        return self._impulse(torch.cat(g.times(advanced), dim=-1), length).permute(1, 2, 0, 3)

    def _step_one(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One position by the recurrence."""
        z = self._advance(state, self._powers(u, 1, 1))
        re, im = z.chunk(2, dim=-1)
        re = re + u.permute(2, 0, 1, 3)
        g = Pair(*self.mix.to(u.dtype).chunk(2, dim=-1))
        y = (g.re * re - g.im * im).sum(-1, keepdim=True)
        return y.permute(1, 2, 0, 3), torch.cat((re, im), dim=-1)

    def _final_state(self, u: Tensor, state: Tensor) -> Tensor:
        """The state after u (H, e, B, S)."""
        length = u.shape[-1]
        powers = self._powers(u, 0, length)
        late = torch.cat((powers.re, powers.im), dim=-2).flip(-1)  # (H, 2 M, S)
        new = u.permute(2, 0, 1, 3) @ late.mT
        return self._advance(state, self._powers(u, length, 1)) + new


def causal_convolution(u: Tensor, h: Tensor) -> Tensor:
    """u (..., T), h (..., T) -> y (..., T), y_t = sum_{s <= t} h_{t-s} u_s, by FFT."""
    length = u.shape[-1]
    padded = smooth(2 * length - 1)
    if torch.compiler.is_compiling():
        return _compiled_convolution(u, h, padded)
    product = torch.fft.rfft(u, n=padded) * torch.fft.rfft(h, n=padded)
    return torch.fft.irfft(product, n=padded)[..., :length]


def _compiled_convolution(u: Tensor, h: Tensor, padded: int) -> Tensor:
    """The same by the operators of `spectra.py`, whose transforms are orthonormal."""
    length = u.shape[-1]
    pad = torch.nn.functional.pad
    fu, fh = (spectrum(pad(x, (0, padded - length))) for x in (u, h))
    y = from_spectrum(fu.times(fh), padded)
    return math.sqrt(padded) * y[..., :length]


def smooth(least: int) -> int:
    """The next length that has no prime factor above 5: FFTs of others take several times as long.

    >>> smooth(125), smooth(1023), smooth(1025)
    (125, 1024, 1080)
    """
    number = least
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1
