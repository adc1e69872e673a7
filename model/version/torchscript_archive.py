"""What is in a program's file: its code, and the values of its attributes.

`torch.jit.load` compiles the code of a file, and holds Python's lock for all of that time: 30 ms for a small network. A
worker that serves cannot make a step meanwhile. And the first calls of what was compiled are slow. But the versions of
a model mostly have the same code: their weights, the number of their items and so on are other values of the same
attributes. Then another instance of a program that is loaded can be given the values of the file. It computes what
`torch.jit.load` would give, with code that is compiled and warm.

What is read here is what torch 2.13 to 2.15 write. An archive with anything else in it is not taken: it is loaded as
usual.
"""

import collections
import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

_CONSTANTS: Final = re.compile(r"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)
"""The constants of a class. TorchScript writes them in any order."""
_UNUSED: Final = "  num_embeddings : "
"""A constant of embeddings that no call reads: the rows of the weight say the same."""
_MANGLED: Final = re.compile(r"\.___torch_mangle_[0-9]+")
_DEFINITION: Final = re.compile(r"^(?:class|def) (\w+).*\n(?:(?:[ \t].*)?\n)*", re.MULTILINE)
_REFERENCE: Final = re.compile(r"__torch__(?:\.\w+)+")
_DTYPES: Final = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Storage(NamedTuple):
    """Where the bytes of tensors are in the archive."""

    name: str
    dtype: torch.dtype


class _View(NamedTuple):
    """A tensor, before it is made."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Object:
    """A module, by its attributes."""

    kind: str
    attributes: Mapping[str, Any]

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.attributes = state


class _Reader(pickle.Unpickler):
    """Reads modules, numbers, text and tensors, and no code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type("_Module", (_Object,), {"kind": f"{module}.{name}"})
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _View(storage, offset, size, stride)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not expected")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, name, _, _ = pid
        return _Storage(name, dtype)


@dataclass(frozen=True, slots=True)
class Archive:
    """What is in a program's file."""

    form: str
    """A hash of all that two programs must have in common to share their compiled code."""
    _values: Mapping[tuple[str, ...], Any]
    """By path: each attribute that is a tensor (`_View`), a number, text or None."""
    _folder: str
    _data: bytes

    @staticmethod
    def read(data: bytes) -> "Archive | None":
        """Read a file; None if it is not what is known here."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                folder = file.namelist()[0].partition("/")[0]
                root = _Reader(io.BytesIO(file.read(f"{folder}/data.pkl"))).load()
                form = hashlib.sha256(file.read(f"{folder}/constants.pkl"))
                code = _Code({name.removeprefix(f"{folder}/code/"): file.read(name) for name in _code_of(file, folder)})
            values = dict(_values(root, (), lambda kind, text: form.update(f"{code.named(kind)} {text}\n".encode())))
            form.update("\n".join(code.texts()).encode())
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, EOFError, pickle.UnpicklingError):
            return None
        return Archive(form.hexdigest(), values, folder, data)

    def inside(self, name: str) -> bytes:
        """A file that was put inside; empty if there is none."""
        with zipfile.ZipFile(io.BytesIO(self._data)) as file:
            found = f"{self._folder}/extra/{name}"
            return file.read(found) if found in file.namelist() else b""

    def write_into(self, module: Any) -> None:
        """Give a module of the same form the values of this archive.

        Args:
            module: torch's own object (`ScriptModule._c`). It and the modules inside it must not be those of a program
                that is in use.
        """
        tensors: dict[_View, Tensor] = {}
        with zipfile.ZipFile(io.BytesIO(self._data)) as file:
            for (*path, name), value in self._values.items():
                owner = module
                for each in path:
                    owner = owner.getattr(each)
                if isinstance(value, _View):
                    if value not in tensors:
                        tensors[value] = _tensor(value, file.read(f"{self._folder}/data/{value.storage.name}"))
                    owner.setattr(name, tensors[value])
                else:
                    owner.setattr(name, value)


class _Code:
    """The classes and functions that a program reaches, with names that do not depend on what else the writer had
    compiled: a second one of a name is `___torch_mangle_1.NAME`, or with another number, in a file of its own or not.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """`files`: path → text."""
        self._texts: dict[str, str] = {}
        for path, text in files.items():
            module = path.removesuffix(".py").replace("/", ".")
            for found in _DEFINITION.finditer(text.decode()):
                self._texts[f"{module}.{found[1]}"] = found[0]
        self._names: dict[str, str] = {}

    def named(self, reference: str) -> str:
        """Our name of a class or function: its own, and the how manieth of that name it is that is reached."""
        if reference not in self._texts:
            return reference
        if reference not in self._names:
            base = _MANGLED.sub("", reference)
            self._names[reference] = f"{base}#{sum(each.startswith(f'{base}#') for each in self._names.values())}"
        return self._names[reference]

    def texts(self) -> Iterator[str]:
        """What was named, and what that names in turn."""
        done = 0
        while done < len(self._names):
            reference, name = list(self._names.items())[done]
            done += 1
            text = _CONSTANTS.sub(_in_order, self._texts[reference])
            yield f"{name}\n{_REFERENCE.sub(lambda found: self.named(found[0]), text)}"


def _code_of(file: zipfile.ZipFile, folder: str) -> list[str]:
    return [name for name in file.namelist() if name.startswith(f"{folder}/code/") and name.endswith(".py")]


def _in_order(constants: re.Match[str]) -> str:
    return "".join(sorted(line for line in constants[0].splitlines(True) if not line.startswith(_UNUSED)))


def _values(
    module: Any, path: tuple[str, ...], common: Callable[[str, str], None]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The attributes of a module and of those inside it. What must be equal in two programs goes to `common`."""
    common(module.kind, f"{path}")
    for name, value in sorted(module.attributes.items()):
        if isinstance(value, _Object):
            yield from _values(value, (*path, name), common)
            continue
        if isinstance(value, _View):
            common(module.kind, f"{name} {value.storage.dtype} {len(value.size)}")
        elif value is None or isinstance(value, bool | int | float | str):
            common(module.kind, f"{name} {type(value).__name__}")
        else:
            raise pickle.UnpicklingError(f"{name} is {type(value).__name__}, which is not expected")
        yield (*path, name), value


def _tensor(view: _View, stored: bytes) -> Tensor:
    if not stored:
        return torch.empty(view.size, dtype=view.storage.dtype)
    flat = torch.frombuffer(bytearray(stored), dtype=view.storage.dtype)
    return flat.as_strided(view.size, view.stride, view.offset)
