"""How many threads torch computes with. Knows torch and nothing else: training starts without a Kafka client."""

import torch


def one_thread() -> None:
    """One thread for torch: workers scale by processes, and a small network's training slows manifold when another
    process has the core.
    """
    torch.set_num_threads(1)
