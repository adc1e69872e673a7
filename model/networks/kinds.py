"""Every kind of network: how it is built for training, and what it is served as."""

from typing import Final

from torch import Tensor

from model.networks.config import (
    KINDS,
    HistoryOptions,
    HoloMambaOptions,
    KVMaskOptions,
    NetworkConfig,
    Rec2PMOptions,
    TokSerialOptions,
)
from model.networks.history import History, HistoryServing
from model.networks.holomamba import HoloMamba, RecurrentServing
from model.networks.kv_mask import CacheServing, KVMask
from model.networks.memory_network import MemoryNetwork
from model.networks.memory_serving import MemoryServing
from model.networks.network import Network, initialise
from model.networks.rec2pm import Rec2PM
from model.networks.serving import Ranker
from model.networks.tok_serial import TokSerial

__all__ = ["KINDS", "WITH_ATTRIBUTES", "Network", "NetworkConfig", "build", "initialise", "serving"]

WITH_ATTRIBUTES: Final = tuple(kind for kind, made in KINDS.items() if made.options is HoloMambaOptions)
"""The kinds that read what items are beside themselves."""


def build(config: NetworkConfig, attribute_of: Tensor | None = None) -> Network:
    """The network in training, not yet initialised.

    Args:
        attribute_of: (V + 2,) int64, the number of each item row's attribute, for `WITH_ATTRIBUTES`; None: no item has
            one.
    """
    shape, options = config.shape, config.options
    match options:
        case HistoryOptions():
            return History(shape, options, shape.window if config.kind == "full" else shape.segment_length)
        case Rec2PMOptions():
            return Rec2PM(shape, options, config.folds_kept)
        case TokSerialOptions():
            return TokSerial(shape, options, config.folds_kept)
        case KVMaskOptions():
            return KVMask(shape, options, config.folds_kept)
        case HoloMambaOptions():
            return HoloMamba(shape, options, attribute_of)
    raise TypeError(f"{type(options).__name__} are the options of no kind")


def serving(network: Network, popularity: Tensor) -> Ranker:
    """A trained network as it is served, with weights of its own: the contract is `model.networks.serving`.

    Args:
        popularity: (V + 1,) float32, how popular each item row is; index 0 is not used.
    """
    ranker: Ranker
    match network:
        case MemoryNetwork():
            ranker = MemoryServing(network, popularity)
        case KVMask():
            ranker = CacheServing(network, popularity)
        case HoloMamba():
            ranker = RecurrentServing(network, popularity)
        case History():
            ranker = HistoryServing(network, popularity)
        case _:
            raise TypeError(f"{type(network).__name__} cannot be served")
    ranker.requires_grad_(requires_grad=False)
    return ranker.eval()
