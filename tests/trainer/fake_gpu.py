"""A GPU without a GPU: PyTorch's fake tensors, which have a device, a dtype and a shape but no values.

What fakes find: tensors of two devices in one operation, wrong dtypes and shapes, operations that do not exist, values
that are read back from the device. What they cannot: wrong numbers, races, speed, memory.

PyTorch's autograd engine refuses to run backward where no accelerator is; `_backward` walks the same graph in Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from trainer.model.attention import found_documents
from trainer.step import parts_of

GPU = torch.device("cuda:0")
CUDA, META = 1, 14  # of c10::DeviceType
MEMORY = 141 << 30


class Watch(TorchDispatchMode):
    """Notes what the CPU would wait for, and which operations ran on the GPU with which dtypes.

    Every number that is read back is 1. A copy that does not say ``non_blocking`` waits, whichever way it goes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operations: Counter[str] = Counter()
        self.dtypes: dict[str, set[tuple[torch.dtype, ...]]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func.overloadpacket)
        kinds = [x.device.type for x in args if isinstance(x, Tensor)]
        if name == "aten._local_scalar_dense":
            if kinds == ["cuda"]:
                self.waits.append(f"a number is read: {_line()}")
            return 1.0
        if name == "aten._to_copy" and "device" in kwargs:
            kinds.append(torch.device(kwargs["device"]).type)
        patient = kwargs.get("non_blocking") or (name == "aten.copy_" and len(args) > 2 and args[2])
        if name in ("aten._to_copy", "aten.copy_") and len(set(kinds)) > 1 and not patient:
            self.waits.append(f"{name} {kinds}: {_line()}")
        out = func(*tree_map_only(Tensor, _faked, args), **kwargs)
        if "cuda" in kinds:
            self.operations[name] += 1
            self.dtypes[name].add(tuple(x.dtype for x in args if isinstance(x, Tensor)))
        return out


def _line() -> str:
    parts = [(Path(frame.filename).parts, frame) for frame in traceback.extract_stack()]
    own = [frame for path, frame in parts if "trainer" in path and "tests" not in path]
    return f"{Path(own[-1].filename).name}: {own[-1].line}" if own else "a test"


def _faked(tensor: Tensor) -> Tensor:
    """A tensor of the loader's thread, in which nothing is fake, as an operation of this one sees it."""
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    return tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)


class Event:
    """torch.cuda.Event's part that is used."""

    waits = 0

    def __init__(self, **_: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        Event.waits += 1


@contextlib.contextmanager
def fake_gpu(capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Within the block, tensors are fakes, and ``cuda:0`` is an H200 as far as the trainer asks."""
    _guard()
    instead: dict[str, Any] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.is_bf16_supported": lambda including_emulation=True: True,
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.cuda.get_device_properties": lambda device=None: mock.Mock(total_memory=MEMORY),
        "torch.cuda.get_device_capability": lambda device=None: capability,
        "torch.cuda.get_device_name": lambda device=None: "NVIDIA H200",
        "torch.cuda.max_memory_allocated": lambda device=None: 1 << 30,
        "torch.cuda.current_stream": lambda device=None: None,
        "torch.cuda.set_device": lambda device: None,
        "torch.cuda.Event": Event,
        "torch.nn.Module.to": lambda self, *where, **options: self,  # fakes cannot be moved: make modules ``with GPU``
        "torch.from_numpy": _with_values(torch.from_numpy),
        "torch.Tensor.numpy": _numpy,
        "trainer.step.parts_of": _with_values(parts_of),
        "trainer.model.attention.found_documents": _with_values(found_documents),
        "torch.Tensor.pin_memory": lambda self, device=None: self,
    }
    with contextlib.ExitStack() as stack, engine_in_python():
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for name, value in instead.items():
            stack.enter_context(mock.patch(name, value))
        yield


@contextlib.contextmanager
def engine_in_python() -> Iterator[None]:
    """Lets backward passes go through `_backward`."""
    with (
        mock.patch("torch.autograd._engine_run_backward", _backward),
        mock.patch("torch._C._current_graph_task_id", lambda: 1),  # activation checkpointing asks for it
    ):
        yield


@contextlib.contextmanager
def memory_is_pinned() -> Iterator[None]:
    """Lets ``torch.empty(…, pin_memory=True)`` give memory that is not."""
    empty = torch.empty
    with mock.patch("torch.empty", lambda *size, pin_memory=False, **options: empty(*size, **options)):
        yield


_real_numpy = torch.Tensor.numpy


def _numpy(tensor: Tensor) -> Any:
    if isinstance(tensor, FakeTensor):
        assert tensor.device.type == "cpu"
        return np.ones(tuple(tensor.shape))
    with _disable_current_modes():
        return _real_numpy(tensor)


def _with_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the CPU that does not end in fakes, though it is called where everything else does."""

    def call(*args: Any) -> Any:
        with _disable_current_modes():
            return function(*args)

    return call


def _guard() -> None:
    """Autograd asks a device's guard for streams; where PyTorch is built without CUDA, the meta device's answers."""
    if not torch.backends.cuda.is_built():
        (path,) = (Path(torch.__file__).parent / "lib").glob("libc10.[ds]*")  # .so or .dylib
        library = ctypes.CDLL(str(path))
        guards = (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
        guards[CUDA] = guards[META]


def _backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor], *_: Any, **__: Any) -> None:
    """Does what the engine does: calls every node once all its gradients are there, and checks them as it does."""
    roots = {tensor.grad_fn: tensor.output_nr for tensor in tensors}
    uses: Counter[Any] = Counter()
    seen: set[Any] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        following = [after for after, _ in node.next_functions if after is not None]
        uses.update(following)
        waiting += following
    found: dict[Any, dict[int, Tensor]] = defaultdict(dict)

    def give(node: Any, place: int, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        expected = node._input_metadata[place]
        assert gradient.device == expected.device, node
        if gradient.shape != expected.shape:
            gradient = gradient.sum_to_size(tuple(expected.shape))
        gradient = gradient.to(expected.dtype)
        found[node][place] = found[node][place] + gradient if place in found[node] else gradient

    for (node, place), gradient in zip(roots.items(), gradients, strict=True):
        give(node, place, gradient)
    ready = [node for node in roots if not uses[node]]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            # A Python function also returns None for each argument that is no tensor; ours come last.
            returned = _called(node, found.pop(node, {}))
            for (after, place), gradient in zip(node.next_functions, returned, strict=False):
                if after is None:
                    continue
                give(after, place, gradient)
                uses[after] -= 1
                if not uses[after]:
                    ready.append(after)


def _called(node: Any, gradients: dict[int, Tensor]) -> Sequence[Tensor | None]:
    """Returns a node's gradients of its inputs; at a leaf, adds to ``.grad``."""
    if hasattr(node, "variable"):
        leaf = node.variable
        for gradient in gradients.values():
            leaf.grad = gradient.detach() if leaf.grad is None else leaf.grad + gradient
        return ()
    if not gradients:
        return [None] * len(node.next_functions)
    given: list[Tensor | None] = []
    for place, meta in enumerate(node._input_metadata):
        gradient = gradients.get(place)
        if gradient is None and hasattr(node, "apply"):  # an autograd function in Python is given zeros
            gradient = torch.zeros(tuple(meta.shape), dtype=meta.dtype, device=meta.device)
        given.append(gradient)
    out = node.apply(*given) if hasattr(node, "apply") else node(*given)
    return out if isinstance(out, tuple) else (out,)
