"""Names of parameters in files of older formats, and what they are called today.

Format 1 -> 2: the names below, and those of Muon's state. Each is a part of a parameter's path; the
same table serves weights, gradients and optimizer state, since all of them are stored under the
parameter's path. No torch.
"""

from __future__ import annotations

import re

# model -> {name in format 1: name now}
RENAMED_SINCE_1: dict[str, dict[str, str]] = {
    "holographic": {
        "memory.binding.code": "memory.binding.qk_proj",
        "memory.code": "memory.qk_proj",
        "memory.dials": "memory.gates_proj",
        "memory.dials_bias": "memory.gates_bias",
    },
    "ngt": {
        "start.origin": "initial_coordinates.origin",
        "start.token": "initial_coordinates.token",
        "mixer.reach": "mixer.radius_cutoff",
    },
    "brain-v2": {
        "ssm.inward": "ssm.in_proj",
        "ssm.code": "ssm.bc_proj",
        "ssm.narrow": "ssm.dt_down",
        "ssm.broad": "ssm.dt_up",
        "ssm.step_size": "ssm.dt_proj",
        "ssm.step_bias": "ssm.dt_bias",
        "memory.dials": "memory.gates_proj",
        "memory.dials_bias": "memory.gates_bias",
    },
    "gated-deltanet": {"mixer.dials": "mixer.decay_write"},
}


def current_name(name: str, model: str, version: int) -> str:
    """A tensor's name in a file of format `version` -> its name today.

    >>> current_name("optimizer/adam/blocks.0.mixer.ssm.step_bias/exp_avg", "brain-v2", 1)
    'optimizer/adam/blocks.0.mixer.ssm.dt_bias/exp_avg'
    """
    table = RENAMED_SINCE_1.get(model, {}) if version < 2 else {}
    for old, new in table.items():
        # whole path components only: a path is a.b.c, with prefixes and suffixes set off by /
        name, found = re.subn(rf"(?<![^./]){re.escape(old)}(?![^./])", new, name)
        if found:
            break
    # Muon's state was a bare tensor before Muon was a torch.optim.Optimizer with a state_dict
    bare = name.startswith("optimizer/muon/") and not name.endswith("/momentum_buffer")
    return f"{name}/momentum_buffer" if bare else name
