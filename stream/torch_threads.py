"""How many threads torch computes with. Knows torch and nothing else: training starts without a Kafka client."""

import torch


def one_thread() -> None:
    """One thread for torch, of a process that computes what a worker does: workers scale by processes."""
    torch.set_num_threads(1)


def use_threads(count: int) -> None:
    """So many threads for torch, of a process that trains."""
    torch.set_num_threads(count)
