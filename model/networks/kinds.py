"""Every kind of model by its name: the network that is trained, and what it is served as."""

from collections.abc import Callable
from typing import Final

from torch import Tensor

from model.networks.history import History, HistoryServing
from model.networks.holomamba import HoloMamba, RecurrentServing
from model.networks.kv_mask import CacheServing, KVMask
from model.networks.memory_serving import MemoryServing
from model.networks.network import KINDS, Network, NetworkConfig, initialise
from model.networks.rec2pm import Rec2PM
from model.networks.serving import Ranker
from model.networks.tok_serial import TokSerial

__all__ = ["KINDS", "WITH_ATTRIBUTES", "Network", "NetworkConfig", "build", "initialise", "serving"]

WITH_ATTRIBUTES: Final = ("holomambarec",)
"""The kinds that read what items are beside themselves."""


def build(config: NetworkConfig, attribute_of: Tensor | None = None) -> Network:
    """The network of `config.kind`, not yet initialised.

    Args:
        attribute_of: (V + 2,) int64, the number of each item row's attribute, for `WITH_ATTRIBUTES`; None: no item has
            one.
    """
    if config.kind == "holomambarec":
        return HoloMamba(config, attribute_of)
    made: dict[str, Callable[[NetworkConfig], Network]] = {
        "full": History,
        "trunc": History,
        "rec2pm": Rec2PM,
        "tok-serial": TokSerial,
        "kv-mask": KVMask,
    }
    return made[config.kind.removesuffix("-o").removesuffix("-a")](config)


def serving(network: Network, popularity: Tensor) -> Ranker:
    """A trained network under the contract of `model.networks.serving`, with weights of its own.

    Args:
        popularity: (V + 1,) float32, how popular each item row is; index 0 is not used.
    """
    ranker: Ranker
    if isinstance(network, Rec2PM):
        ranker = MemoryServing(network, popularity)
    elif isinstance(network, KVMask):
        ranker = CacheServing(network, popularity)
    elif isinstance(network, HoloMamba):
        ranker = RecurrentServing(network, popularity)
    elif isinstance(network, History):
        ranker = HistoryServing(network, popularity)
    else:
        raise TypeError(f"{type(network).__name__} cannot be served")
    ranker.requires_grad_(requires_grad=False)
    return ranker.eval()
