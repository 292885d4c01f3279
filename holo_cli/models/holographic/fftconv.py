"""One long filter per channel instead of a memory: y = q * (h convolved with k * v).

    h_c(t) = Re sum_m g_cm e^{(-r_m + i w_m) t},   t = 0, 1, ...

M decaying oscillations per head, which its channels mix each in their own way. Over a whole
sequence the convolution is a product of spectra, O(T log T); token by token it is M complex
numbers per channel, z <- e^{-r + i w} z + u, y = Re sum_m g_m z_m. Unusual only against a mistake
that is easily made: both signals are padded to 2 T, since the FFT's convolution is circular and
would hand the end of the sequence to its beginning.

Legend: B rows, S positions, H heads, e = C / H, M modes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.memory import half_lives
from holo_cli.models.holographic.phasors import Pair, full_precision, phasor, wide


class FFTConv(nn.Module):
    """Filters k * v along time and reads with q, all (B, S, H, e)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        heads, modes = config.heads, config.fft_modes
        self.code = nn.Linear(config.width, 2 * config.width, bias=False)
        self.code.weight.splits = 2  # type: ignore[attr-defined]
        self.rate = nn.Parameter(torch.empty(heads, modes))  # log of r
        self.turn = nn.Parameter(torch.empty(heads, modes))  # w, radians per token
        self.mix = nn.Parameter(torch.empty(heads, config.head_width, 2 * modes))  # Re g | Im g
        for p in (self.rate, self.turn):
            p.no_muon = True  # type: ignore[attr-defined]

    def finish_initialisation(self) -> None:
        """Half-lives in a geometric series over the modes; a turn per half-life, near zero for the
        long ones; each mode adds the same energy."""
        config = self.config
        lives = half_lives(config.half_life_min, config.half_life_max, config.fft_modes)
        with torch.no_grad():
            for m, life in enumerate(lives):
                self.rate[:, m] = math.log(math.log(2) / life)
                for head in range(config.heads):
                    # heads differ in how often a mode turns while it fades by half
                    self.turn[head, m] = min(2 * math.pi * (head + 0.5) / life, math.pi)
            energy = (1 - torch.exp(-2 * self.rate.exp())) / config.fft_modes
            nn.init.normal_(self.mix)
            self.mix.mul_(energy.sqrt().repeat(1, 2)[:, None])

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """x (B, T, C), v (B, T, H, e) -> y (B, T, H, e), float32 at least."""
        q, u = self._signals(x, v)
        with full_precision(x):
            return q * self._convolve(u)

    def step(self, x: Tensor, v: Tensor, state: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """The same for the positions after `state`, which is (B, H, e, 2 M): Re z | Im z."""
        q, u = self._signals(x, v)
        with full_precision(x):
            if u.shape[1] == 1:
                return self._one(q, u, state)
            faded = Pair(*self._fade(state, self._powers(u, 1, 1)).chunk(2, dim=-1))
            left = torch.cat(Pair(*self.mix.to(u.dtype).chunk(2, dim=-1)).times(faded), dim=-1)
            echo = self._impulse(left, u.shape[1])
            y = q * (self._convolve(u) + echo.permute(0, 3, 1, 2))
            return y, self._end(u, state)

    def init_state(self, batch: int) -> Tensor:
        w = self.mix
        return torch.zeros(batch, *w.shape, dtype=wide(w.dtype), device=w.device)

    def state_numbers(self) -> int:
        return self.mix.numel()

    def flops(self, length: float) -> float:
        """Beside the projections only the filter is a product, two per number of `mix`, which
        counting weights has done already; rates meet no token. FFTs are no products."""
        return -2.0 * (self.rate.numel() + self.turn.numel())

    def decode_flops(self) -> float:
        """Turn and fade, add, sum up."""
        return 7.0 * self.state_numbers()

    def _signals(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """-> q and u = k * v, (B, S, H, e), float32 at least."""
        q, k = self.code(x).to(wide(x.dtype)).view(*x.shape[:2], 2, *v.shape[2:]).unbind(2)
        return q, k * v.to(q.dtype)

    def _powers(self, like: Tensor, start: int, length: int) -> Pair:
        """e^{(-r + i w) t} for t = start .. start + length - 1, each (H, M, length)."""
        time = torch.arange(start, start + length, dtype=like.dtype, device=like.device)
        size = (-self.rate.to(like.dtype).exp()[..., None] * time).exp()
        wave = phasor(self.turn.to(like.dtype)[..., None] * time)
        return Pair(size * wave.re, size * wave.im)

    def _fade(self, state: Tensor, by: Pair) -> Tensor:
        """(B, H, e, 2 M) times (H, M, 1), complex."""
        z = Pair(*state.chunk(2, dim=-1)).times(Pair(by.re.mT, by.im.mT))
        return torch.cat(z, dim=-1)

    def _impulse(self, weight: Tensor, length: int) -> Tensor:
        """Re sum_m g_m e^{(-r + i w) t} for g = weight (..., H, e, 2 M) -> (..., H, e, S)."""
        powers = self._powers(weight, 0, length)
        return weight @ torch.cat((powers.re, -powers.im), dim=-2)

    def filter(self, length: int) -> Tensor:
        """h, (H, e, T): what is left of one token after 0 .. T - 1 further ones."""
        return self._impulse(self.mix.to(wide(self.mix.dtype)), length)

    def _convolve(self, u: Tensor) -> Tensor:
        """(B, T, H, e) -> the same shape: sum_{s <= t} h(t - s) u_s."""
        return causal_convolution(u, self.filter(u.shape[1]).to(u.dtype).permute(2, 0, 1))

    def _one(self, q: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        z = self._fade(state, self._powers(u, 1, 1))
        re, im = z.chunk(2, dim=-1)
        state = torch.cat((re + u[:, 0, ..., None], im), dim=-1)
        g = Pair(*self.mix.to(u.dtype).chunk(2, dim=-1))
        re, im = state.chunk(2, dim=-1)
        return q * (g.re * re - g.im * im).sum(-1)[:, None], state

    def _end(self, u: Tensor, state: Tensor) -> Tensor:
        """The state after u (B, S, H, e): older inputs have faded more."""
        length = u.shape[1]
        powers = self._powers(u, 0, length)
        late = torch.cat((powers.re, powers.im), dim=-2).flip(-1)  # (H, 2 M, S)
        new = u.permute(0, 2, 3, 1) @ late.mT
        return self._fade(state, self._powers(u, length, 1)) + new


@torch.compiler.disable  # compilers have no FFT of their own
def causal_convolution(u: Tensor, h: Tensor) -> Tensor:
    """u (B, T, ...), h (T, ...) -> y (B, T, ...), y_t = sum_{s <= t} h_{t-s} u_s, by FFT."""
    length = u.shape[1]
    product = torch.fft.rfft(u, n=2 * length, dim=1) * torch.fft.rfft(h, n=2 * length, dim=0)
    return torch.fft.irfft(product, n=2 * length, dim=1)[:, :length]
