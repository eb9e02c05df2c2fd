"""What a recipe is planned for: devices, how many stand in a node, and the network between them.

Memory and links are per device, links per direction, from NVIDIA's datasheets: A100 SXM4 80 GB
(2021), H100 SXM5 (2023), H200 SXM (2024). What they multiply stands in `model.flops`. Hosts are
those of DGX A100 (two EPYC 7742 with 8 channels of DDR4-3200 each, PCI Express 4.0), DGX H100 and
H200 (two Xeon 8480C with 8 channels of DDR5-4800 each, PCI Express 5.0), 8 devices each. They have
2 TB; a run has what its pods ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.flops import Precision, peak_flops


@dataclass(frozen=True)
class Device:
    """One accelerator: memory in bytes, bytes/s of memory and of the links."""

    name: str
    memory: float
    bandwidth: float
    link: float
    """To the other devices of a node (NVLink), one direction."""
    host_link: float
    """To the memory of its node (PCI Express, 16 lanes), one direction."""
    host_bandwidth: float
    """Of the memory of a node, which its devices share."""

    def flops(self, precision: Precision) -> float:
        """Dense FLOP/s."""
        peak = peak_flops(self.name, precision)
        assert peak is not None, f"model.flops lists no {precision} of {self.name}"
        return peak


DEVICES = {
    "a100": Device("A100", 80e9, 2.04e12, 300e9, 32e9, 409.6e9),
    "h100": Device("H100", 80e9, 3.35e12, 450e9, 64e9, 614.4e9),
    "h200": Device("H200", 141e9, 4.8e12, 450e9, 64e9, 614.4e9),
}


class Hardware(BaseModel):
    """A recipe's `hardware`. The shares say how much of a datasheet's figure large training runs
    reach.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    device: Literal["a100", "h100", "h200"]
    per_node: int = Field(default=8, ge=1)
    network_gbit: float = Field(default=400, gt=0)
    """Per device and direction, in Gbit/s: InfiniBand NDR with one adapter a device."""
    matmul_share: float = Field(default=0.7, gt=0, le=1)
    """8192-cubed bfloat16 products reach 0.8 on an H100; training's narrower ones less."""
    attention_share: float = Field(default=0.35, gt=0, le=1)
    """FlashAttention-2 on an H100, forward and backward (arXiv:2407.08608, section 1)."""
    bandwidth_share: float = Field(default=0.85, gt=0, le=1)
    network_share: float = Field(default=0.8, gt=0, le=1)
    host_memory_gb: float = Field(default=549.8, gt=0)
    """Of a node, for all workers there: the 512 GiB that a pod of `k8s/overlays/gpu` asks for."""
    host_memory_share: float = Field(default=0.8, gt=0, le=1)
    """The rest is the page cache's, shared memory's and Ray's object store's; an assumption."""
    host_link_share: float = Field(default=0.8, gt=0, le=1)
    """Of PCI Express, by copies of pinned memory; an assumption."""
    host_bandwidth_share: float = Field(default=0.7, gt=0, le=1)
    """Of the host's memory, by all workers of a node; an assumption."""
    core_gbyte_s: float = Field(default=12, gt=0)
    """GB/s of the host's memory that one core moves; a worker updates offloaded states with
    `parallel.threads` of them. An assumption."""

    @property
    def datasheet(self) -> Device:
        return DEVICES[self.device]
