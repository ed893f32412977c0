"""What is known of a value before it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onefold.ir import dims
from onefold.ir.dtypes import DType

Rounding = Literal["tflite", "onnx"]


@dataclass(frozen=True, slots=True)
class Quant:
    """real = scale * (stored - zero_point), and by which rule results are rounded.

    rule "tflite": fixed-point multipliers with double rounding (the TFLite reference kernels);
    "onnx": float multiply, round half to even, saturate. axis None: one scale for the tensor.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...] = (0,)
    axis: int | None = None
    rule: Rounding = "tflite"

    @property
    def per_axis(self) -> bool:
        return self.axis is not None and len(self.scale) > 1


@dataclass(frozen=True, slots=True)
class TensorType:
    """shape, element type, quantization, memory layout and memory space of a value.

    layout: block of the family N,C/c,H,W,c: 0 means axes as written (row-major), c > 0 means
    axis 1 is split in blocks of c that are stored innermost. rounded: the type of the elements in
    memory, where they are rounded when they are stored.
    """

    shape: dims.Shape
    dtype: DType
    quant: Quant | None = None
    layout: int = 0
    space: str = ""
    rounded: DType | None = None

    @property
    def memory(self) -> DType:
        """The type of the elements as they lie in memory."""
        return self.rounded or self.dtype

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> dims.Dim:
        """Number of elements."""
        return dims.product(self.shape)

    @property
    def static(self) -> bool:
        return dims.is_static(self.shape)

    @property
    def ints(self) -> tuple[int, ...]:
        """The shape, all of it known."""
        out = []
        for d in self.shape:
            if not isinstance(d, int):
                raise TypeError(f"dimension {d} is not known at compile time")
            out.append(d)
        return tuple(out)

    def __repr__(self) -> str:
        text = f"{self.dtype.name}[{','.join(str(d) for d in self.shape)}]"
        if self.quant is not None:
            q = self.quant
            scale = f"{q.scale[0]:.9g}" if len(q.scale) == 1 else f"{len(q.scale)} scales"
            axis = f" axis {q.axis}" if q.per_axis else ""
            text += f" {{{q.rule} {scale} zero {q.zero_point[0]}{axis}}}"
        if self.layout:
            text += f" c{self.layout}"
        if self.rounded is not None:
            text += f" as {self.rounded.name}"
        return text


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list of tensors (or an optional value); lives on the host only."""

    element: TensorType | SequenceType | OptionalType | None

    def __repr__(self) -> str:
        return f"seq({self.element})"


@dataclass(frozen=True, slots=True)
class OptionalType:
    element: TensorType | SequenceType | None

    def __repr__(self) -> str:
        return f"optional({self.element})"


AnyType = TensorType | SequenceType | OptionalType
