"""A network as TorchScript. Every use of `torch.jit` is here.

TorchScript is deprecated, but complete in the releases of torch that pyproject.toml allows. Another format of programs
would change only this file and what calls it (docs/decisions/0008-torchscript.md).
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

# From torch 2.14 on each use of `torch.jit` warns users, who cannot do anything about it. A filter for the process:
# those that are made and taken back are not safe where another thread does the same.
warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)

CONTRACT = ("spec", "initial_memory", "update", "recommend", "rank")
"""The methods of a program: all that a worker calls. A program may have more."""

Program = Any
"""A scripted module with the methods of `CONTRACT`, which TorchScript's types cannot say."""

PROGRAM_FAILURES = (RuntimeError, torch.jit.Error)
"""What a call of a program raises: the error of an operation, or one that the program itself raises."""


def script(network: nn.Module, methods: Sequence[str] = CONTRACT) -> Program:
    """The network as TorchScript. `methods` can be called on it."""
    for name in methods:
        torch.jit.export(getattr(type(network), name))
    return torch.jit.script(network.eval())


def saved(program: Program, inside: Mapping[str, bytes]) -> bytes:
    """The program as bytes, with files inside."""
    buffer = io.BytesIO()
    torch.jit.save(program, buffer, _extra_files=dict(inside))
    return buffer.getvalue()


def loaded(data: bytes, inside: Sequence[str]) -> tuple[Program, dict[str, bytes | str]]:
    """A program from its bytes, and the files inside; empty where there is no such file.

    Raises:
        RuntimeError: it is no program, or not one that this torch can read.
        ValueError: the same.
    """
    files: dict[str, bytes | str] = dict.fromkeys(inside, "")
    program = torch.jit.load(io.BytesIO(data), map_location="cpu", _extra_files=files)  # type: ignore[no-untyped-call]
    return program, files
