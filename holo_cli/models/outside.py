"""From a class outside the package to a model: a mixer in every block of the backbone, or a whole
model that is taken as it is."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from holo_cli.config.model_schema import BackboneConfig, ModelConfig
from holo_cli.errors import UsageError
from holo_cli.layers.interfaces import Mixer
from holo_cli.models.backbone import Backbone
from holo_cli.models.base import LanguageModel


def config_and_builder(
    where: str, found: type, module: ModuleType
) -> tuple[type[ModelConfig], Callable[..., LanguageModel]]:
    """The config class of a model and what builds the model from it.

    The config is `Config` of the module, or without one the backbone's own. Raises UsageError for
    a class that is neither a mixer nor a model.
    """
    if not issubclass(found, Mixer | LanguageModel):
        raise UsageError(
            f"{where}: this class is not a mixer.",
            next_step="It must derive from holo_cli.layers.interfaces.Mixer, or for a whole model "
            "from holo_cli.models.base.LanguageModel.",
        )
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(
            f"{where}: this class lacks {', '.join(lacking)}.",
            next_step="The contract is in holo_cli/models/README.md.",
        )
    base = BackboneConfig if issubclass(found, Mixer) else ModelConfig
    config = getattr(module, "Config", base)
    if not isinstance(config, type) or not issubclass(config, base):
        raise UsageError(
            f"{where}: the Config of its module is not a config.",
            next_step=f"It must derive from holo_cli.config.model_schema.{base.__name__}.",
        )
    if not config.mechanism:
        first = (found.__doc__ or "").strip().partition("\n")[0]
        config = type("Config", (config,), {"mechanism": first, "__module__": config.__module__})
    return config, _with_mixer(found) if issubclass(found, Mixer) else found


def _with_mixer(mixer: type[Mixer]) -> type[Backbone]:
    class Model(Backbone):
        """The backbone with a mixer from outside in every block."""

        def make_mixer(self, layer: int) -> Mixer:
            return mixer(self.config)

    return Model
