"""A model over several ranks: copies that average their gradients (DDP), or shards (FSDP2), by PyTorch's own means.

    ddp      every rank holds all; gradients are averaged while the backward pass goes on
    zero3    weights, gradients and optimizer are cut over the ranks; a layer's weights come together when it computes
    zero2    as zero3, but weights stay together from the forward to the backward pass: more memory, less to send
    zero1    as zero2, and while a step's batch is accumulated in parts, weights and gradients stay whole between
             them: gradients are reduced once a step

The names are ZeRO's (Rajbhandari et al., arXiv 1910.02054); FSDP2 (`torch.distributed.fsdp.fully_shard`) does the work.
Its gradients and DDP's are means over ranks, so that a loss that is to be summed is multiplied by their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from trainer.config import Parallelism
from trainer.model.decoder import Decoder
from trainer.parallel.ranks import Ranks


class SpreadModel:
    """``model`` as one rank holds it: weights whole or cut, names the same. `forward` is what to call.

    Args:
      model: whole, and the same on every rank; for sharding, on the CPU.
    """

    def __init__(self, model: Decoder, kind: Parallelism, ranks: Ranks) -> None:
        self.model, self.kind, self.ranks = model, kind, ranks
        self.forward: nn.Module = model
        if ranks.count == 1:
            model.to(ranks.device)
        elif kind == "ddp":
            model.to(ranks.device)
            where = [ranks.device] if ranks.device.type == "cuda" else None
            self.forward = DistributedDataParallel(model, device_ids=where, gradient_as_bucket_view=True)
        else:
            _shard(model, kind, ranks)

    @contextlib.contextmanager
    def part(self, is_last: bool) -> Iterator[None]:
        """Around the forward and backward pass of one part of a step: after the last, gradients are those of all."""
        if isinstance(self.forward, DistributedDataParallel) and not is_last:
            with self.forward.no_sync():
                yield
            return
        if isinstance(self.model, FSDPModule) and self.kind == "zero1":
            self.model.set_requires_gradient_sync(is_last)
            self.model.set_reshard_after_backward(is_last)
        yield

    @torch.no_grad()
    def clip_gradient(self, max_norm: float) -> float:
        """Scales the gradient down to a norm of ``max_norm`` if it is longer; returns its norm before."""
        norm = float(whole(nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)))
        mesh = self.ranks.mesh
        if mesh is not None and mesh.ndim > 1:
            # Every group of ranks has summed by itself, perhaps in another order; all must judge the step alike.
            norm = float(self.ranks.gather(np.array([norm]))[0, 0])
        return norm


def _shard(model: Decoder, kind: Parallelism, ranks: Ranks) -> None:
    """Makes every layer a group of weights that come together at once, and the rest another."""
    assert ranks.mesh is not None
    # On GPUs the layers compute in bfloat16 anyhow (autocast): so they need not be sent in more. Gradients are summed
    # in float32. Rotary tables must not be rounded, hence no cast of inputs.
    on_gpu = ranks.device.type == "cuda"
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
        if on_gpu
        else MixedPrecisionPolicy()
    )
    reshard = kind == "zero3"
    for layer in model.layers:
        fully_shard(layer, mesh=ranks.mesh, reshard_after_forward=reshard, mp_policy=policy)
    # What is left is used first and last: the root's weights stay together over both.
    fully_shard(model, mesh=ranks.mesh, reshard_after_forward=False)


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor with the shards of all ranks; all of them must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def send_shards(tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Takes part where the first rank asks for `whole` tensors, file by file, each `in_order`; keeps nothing."""
    for named in tensors.values():
        for name in in_order(named):
            whole(named[name])


def in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the names as they are written: large elements first, so that all are aligned; the same on all ranks."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def shard_like(value: Tensor, held: Tensor) -> Tensor:
    """Returns this rank's part of a whole tensor, if ``held`` is a part of one; nothing is sent."""
    if not isinstance(held, DTensor):
        return value
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)
