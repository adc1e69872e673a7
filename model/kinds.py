"""The kinds of model that can be trained: what the trainer knows of a network."""

import torch
from torch import Tensor, nn

from model import network as networks
from model.errors import RecipeInvalid
from model.loss import Losses
from model.loss import losses as rec2pm_losses
from model.network import NetworkConfig, Rec2PM
from model.serving import Serving

KINDS: tuple[str, ...] = ("rec2pm-o",)


class Trainable(Rec2PM):
    """A network as the trainer sees it: `config`, `item`, `losses` and `stage`."""

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor) -> Losses:
        """As `model.loss.losses`."""
        if negatives.dim() != 1:
            raise ValueError(
                f"negatives have shape {tuple(negatives.shape)}; this kind shares them between positions: negative_mode = 'shared'"
            )
        return rec2pm_losses(self, items, targets, negatives)

    def stage(self, epoch: int) -> None:
        """Nothing: every epoch trains alike."""


def build(config: NetworkConfig) -> Trainable:
    """The training network of `config.kind`.

    Raises:
        RecipeInvalid: there is no such kind or backbone.
    """
    if (config.kind, config.backbone) != ("rec2pm-o", "sasrec"):
        raise RecipeInvalid(f"kind {config.kind!r} on backbone {config.backbone!r}: known is rec2pm-o on sasrec")
    return Trainable(config)


def initialise(network: Trainable, generator: torch.Generator) -> None:
    """As `model.network.initialise`."""
    networks.initialise(network, generator)


def serving(network: Trainable, popularity: Tensor) -> nn.Module:
    """The network under the contract of `model.serving`; its weights are below `network.` in the state dict."""
    return Serving(network, popularity)
