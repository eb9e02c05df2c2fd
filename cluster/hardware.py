"""What devices can do by their datasheets: the ground of plans and of model FLOPs utilisation.

Figures are dense (no sparsity), per device, and per direction where they are links:
NVIDIA H100 SXM5 datasheet (2023), H200 SXM datasheet (2024), A100 SXM4 80 GB datasheet (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Device:
    """One accelerator: FLOP/s by precision, memory in bytes, bytes/s of memory and of the links."""

    name: str
    flops: dict[Precision, float]
    """bfloat16 on tensor cores; float32 without TF32, as PyTorch multiplies unless told."""
    memory: float
    bandwidth: float
    link: float
    """To the other devices of a node (NVLink), one direction."""
    watts: float


DEVICES = {
    "a100": Device("A100", {"bfloat16": 312e12, "float32": 19.5e12}, 80e9, 2.04e12, 300e9, 400),
    "h100": Device("H100", {"bfloat16": 989.4e12, "float32": 67e12}, 80e9, 3.35e12, 450e9, 700),
    "h200": Device("H200", {"bfloat16": 989.4e12, "float32": 67e12}, 141e9, 4.8e12, 450e9, 700),
}


def device_called(name: str) -> Device | None:
    """The device in a name such as torch gives it, "NVIDIA H100 80GB HBM3"; None if unknown."""
    words = name.lower().replace("-", " ").split()
    return next((device for key, device in DEVICES.items() if key in words), None)


class Hardware(BaseModel):
    """What a recipe is planned for: devices, how many stand in a node, and the network between.

    The shares say how much of a datasheet's figure large training runs reach.
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

    @property
    def datasheet(self) -> Device:
        return DEVICES[self.device]
