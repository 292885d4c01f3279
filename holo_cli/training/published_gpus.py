"""What makers publish about GPUs, for plans before one is rented; nothing here was measured.

Product rate in bfloat16 without sparsity, memory, and what one GPU sends to others in one direction
while it receives as much: half of the figure that data sheets give for NVLink or PCI Express. From
NVIDIA's data sheets (A100 80GB SXM, H100 SXM, H200 SXM, HGX B200, L40S, L4).
"""

from __future__ import annotations

from dataclasses import dataclass

from holo_cli.errors import UsageError, nearest

UTILIZATION = 0.4  # Llama 3 405B: 38 to 43 % on 8,000 to 16,000 H100s (arXiv 2407.21783, table 4)


@dataclass(frozen=True)
class PublishedGPU:
    """Rate in Tflop/s, memory and link in GB and GB/s."""

    tflops: float
    memory: float
    link: float


GPUS = {
    "a100": PublishedGPU(312, 80, 300),
    "h100": PublishedGPU(989, 80, 450),
    "h200": PublishedGPU(989, 141, 450),
    "b200": PublishedGPU(2250, 180, 900),
    "l40s": PublishedGPU(362, 48, 32),
    "l4": PublishedGPU(121, 24, 32),
}


def published_gpu(name: str) -> PublishedGPU:
    """A GPU by its name. Raises UsageError for one that is not in the table."""
    found = GPUS.get(name.lower())
    if found is None:
        raise UsageError(
            f"--gpu has no published figures of '{name}'.",
            next_step=f"{nearest(name.lower(), GPUS)} For another one give --gpu-tflops and "
            "--link.",
        )
    return found


@dataclass(frozen=True)
class AssumedSpeed:
    """From what the time of a step is computed. A GPU makes either `tokens_per_second`, measured
    without communication, or `utilization` of `flops` a second; it sends `link` bytes a second."""

    tokens_per_second: float | None = None
    flops: float | None = None
    utilization: float = UTILIZATION
    link: float | None = None

    def check(self) -> None:
        """Raises UsageError for numbers that no GPU has, and for a link alone."""
        _above_zero(
            "--tokens-per-second",
            self.tokens_per_second,
            next_step="Use a figure that `holo bench speed` measured on one such GPU.",
        )
        _above_zero(
            "--gpu-tflops",
            self.flops,
            next_step="Use the rate in bfloat16 that its maker publishes, without sparsity.",
        )
        _above_zero(
            "--link",
            self.link,
            next_step="Use what one GPU sends in GB/s, in one direction, by the slowest link.",
        )
        if not 0 < self.utilization <= 1:
            raise UsageError(
                f"--utilization must be above 0 and at most 1, not {self.utilization:g}.",
                next_step=f"{UTILIZATION:g} is what large runs reach; small models reach less.",
            )
        if self.link is not None and self.tokens_per_second is None and self.flops is None:
            raise UsageError(
                "--link alone gives no speed.",
                next_step="Add --gpu-tflops or --tokens-per-second, or name a GPU with --gpu.",
            )

    def compute_seconds(self, tokens: float, flops_per_token: float, work: float) -> float | None:
        """Of `tokens` on one GPU; `work`: how many times the usual operations are made."""
        if self.tokens_per_second is not None:
            return work * tokens / self.tokens_per_second
        if self.flops is None:
            return None
        return work * tokens * flops_per_token / (self.flops * self.utilization)


def _above_zero(flag: str, value: float | None, *, next_step: str) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"{flag} must be above 0.", next_step=next_step)
