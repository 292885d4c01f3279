"""Growth in its plainest form: old blocks keep their numbers, new ones follow."""

from __future__ import annotations

from typing import Any

import torch

from holo_cli.models.backbone import Backbone
from holo_cli.models.base import LanguageModel
from holo_cli.models.vanilla.attention import Attention


class Model(Backbone):
    """identity: new blocks as initialised, which add nothing; copy: each is a copy of one below."""

    config: Any

    def make_mixer(self, layer: int) -> Attention:
        return Attention(self.config)

    def grown(self, layers: int) -> tuple[LanguageModel, dict[str, str | None]]:
        deeper = Model(self.config.at_depth(layers)).to(self.device)
        old = dict(self.named_parameters())
        names: dict[str, str | None] = {}
        with torch.no_grad():
            for name, p in deeper.named_parameters():
                was: str | None = name
                if name not in old:
                    blocks, number, rest = name.split(".", 2)
                    copied = f"{blocks}.{int(number) % self.config.layers}.{rest}"
                    was = copied if self.config.how == "copy" else None
                names[name] = was
                if was is not None:
                    p.copy_(old[was])
        return deeper, names
