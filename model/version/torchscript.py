"""A network as TorchScript. Every use of `torch.jit` is here.

TorchScript is deprecated, but complete in the releases of torch that pyproject.toml allows. Another format of programs
would change only this file and what calls it (docs/decisions/0008-torchscript.md).
"""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from model.version.torchscript_archive import Archive

logger = logging.getLogger(__name__)

# From torch 2.14 on each use of `torch.jit` warns users, who cannot do anything about it. A filter for the process:
# those that are made and taken back are not safe where another thread does the same.
warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)

CONTRACT = ("spec", "initial_memory", "update", "recommend", "rank")
"""The methods of a program that a worker cannot do without."""

PREFIXES = ("longest_prefix", "encode_prefixes")
"""Methods that a program may lack: lists after several prefixes of the same items then take a pass each."""

Program = Any
"""A scripted module with the methods of `CONTRACT`, which TorchScript's types cannot say."""

PROGRAM_FAILURES = (RuntimeError, torch.jit.Error)
"""What a call of a program raises: the error of an operation, or one that the program itself raises."""


def script(network: nn.Module, methods: Sequence[str] = CONTRACT) -> Program:
    """The network as TorchScript. `methods` can be called on it, and those of `PREFIXES` that it has."""
    for name in (*methods, *(name for name in PREFIXES if hasattr(network, name))):
        torch.jit.export(getattr(type(network), name))
    return torch.jit.script(network.eval())


def encodes_prefixes(program: Program) -> bool:
    """Whether a program has the methods of `PREFIXES`."""
    return all(hasattr(program, name) for name in PREFIXES)


def saved(program: Program, inside: Mapping[str, bytes]) -> bytes:
    """The program as bytes, with files inside."""
    buffer = io.BytesIO()
    torch.jit.save(program, buffer, _extra_files=dict(inside))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program, and what its archive is like."""

    program: Program
    form: str | None
    """`Archive.form`; None: the archive is of an unknown kind."""
    inside: Mapping[str, bytes | str]
    """The files inside that were asked for; empty where there is no such file."""
    shares_code: bool = False
    """Whether what is compiled was there already."""


def loaded(data: bytes, inside: Sequence[str], like: tuple[Program, str | None] | None = None) -> Loaded:
    """A program from its bytes.

    Args:
        inside: names of files inside.
        like: a program that is loaded, and its form. If this one has the same, it is another instance of that one, and
            shares what is compiled.

    Raises:
        RuntimeError: it is no program, or not one that this torch can read.
        ValueError: the same.
    """
    archive = Archive.read(data)
    form = None if archive is None else archive.form
    if archive is not None and like is not None and like[1] == form:
        try:
            instance = _another_instance(like[0])
            archive.write_into(instance._c)
        except (AttributeError, RuntimeError) as error:
            logger.warning("code that is compiled cannot be shared with torch %s: %s", torch.__version__, error)
        else:
            return Loaded(instance, form, {name: archive.inside(name) for name in inside}, shares_code=True)
    files: dict[str, bytes | str] = dict.fromkeys(inside, "")
    program = torch.jit.load(io.BytesIO(data), map_location="cpu", _extra_files=files)  # type: ignore[no-untyped-call]
    return Loaded(program, form, files)


def _another_instance(program: Program) -> Program:
    """A program with the same code and with modules of its own. Torch has no public call that copies no tensors."""
    return torch.jit._recursive.wrap_cpp_module(_copied(program._c))  # type: ignore[no-untyped-call]


def _copied(module: Any) -> Any:
    """A module and the modules in it, each with the same values."""
    copy = module._replicate_for_data_parallel()  # itself alone: the modules in it are the same ones
    for name, inner in torch._C.ModuleDict(module).items():
        copy.setattr(name, _copied(inner))
    return copy
