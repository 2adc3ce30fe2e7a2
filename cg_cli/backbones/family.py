"""What a model family says about itself before any of its code is imported: which checkpoints are its, and what can be
done with them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cg_cli.errors import UsageError
from cg_cli.util.plugins import Entry

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone


@dataclass(frozen=True)
class Family:
    """One family of Omni-LLMs; a package brings one by an entry point of the group ``cg_cli.backbones``.

    Attributes:
        name: as records give it.
        model_types: values of ``model_type`` in config.json.
        sound_key: the key of config.json that its checkpoints have, where models without sound share the model_type.
        backbone: its ``Backbone`` class, ``module:Class``.
        weights_prefix: of the keys of the weights that are run, in a checkpoint that holds more; "" runs all.
        not_quantizable: why bitsandbytes cannot quantize it, or None.
        merged_checkpoints: hub ids to use instead of its LoRA adapters.
        positions: names of the sets of rotary positions that it can use, the usual one first; () where it has one.
    """

    name: str
    model_types: tuple[str, ...]
    backbone: str
    sound_key: str = ""
    weights_prefix: str = ""
    not_quantizable: str | None = None
    merged_checkpoints: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether config.json is of a checkpoint of this family."""
        return config.get("model_type") in self.model_types and (not self.sound_key or bool(config.get(self.sound_key)))

    @property
    def supported(self) -> str:
        """What it matches, for messages."""
        types = ", ".join(self.model_types)
        return f"{types} with {self.sound_key}" if self.sound_key else types

    def choose_positions(self, asked: str) -> str | None:
        """The set of positions that ``asked`` means, "auto" the usual one; None where there is one, which is that of
        training and of inference. UsageError for a set that a family with several has not."""
        if not self.positions:
            return None
        if asked == "auto":
            return self.positions[0]
        if asked not in self.positions:
            raise UsageError(f"--positions {asked}: {self.name} has {' and '.join(self.positions)}")
        return asked

    def load_class(self) -> type[Backbone]:
        """Import its ``Backbone``. UsageError when that fails."""
        from cg_cli.backbones.base import Backbone

        backbone = Entry(self.backbone, self.supported, self.backbone.partition(".")[0]).load("backbone")
        if not (isinstance(backbone, type) and issubclass(backbone, Backbone)):
            raise UsageError(
                f"{self.backbone} of family {self.name} is not a subclass of cg_cli.backbones.base.Backbone"
            )
        return backbone
