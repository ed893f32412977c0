"""Operators of object detectors: suppression of boxes, and pooling of regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator
from onefold.ops.formats import OnnxNode
from onefold.ops.known import checked_shape, found, may_differ, put
from onefold.ops.sort import INDEX_BYTES

MAX_GRID = 1 << 14  # samples along one side of a bin; more only come from senseless regions

_BOXES = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11],
                    [0, 10.1, 1, 11.1], [0, 100, 1, 101]]], np.float32)  # fmt: skip
_SCORES = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5, 0.3]]], np.float32)


@operator
class NonMaxSuppression(Op):
    """Per batch entry and class the best boxes that do not overlap a better chosen one.

    Inputs: boxes [n, b, 4] (y1, x1, y2, x2 in any order of corners, or center x, center y, width,
    height), scores [n, classes, b], most boxes per class (int64), intersection over union that is
    too much, score that must be exceeded. Result: int64 [chosen, 3]: entry, class, box.
    """

    center_point_box: bool = False
    onnx: ClassVar = ("NonMaxSuppression",)
    exact: ClassVar = True
    cases: ClassVar = (
        Case((_BOXES, _SCORES, np.array([3]), np.array([0.5], np.float32),
              np.array([0.4], np.float32))),
        Case((_BOXES, _SCORES, np.array([9]), np.array([0.5], np.float32))),
        Case((_BOXES, _SCORES)),
        Case((((2, 9, 4), "f32"), ((2, 3, 9), "f32"), np.array(4), np.array(0.1, np.float32)),
             {"center_point_box": True}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        boxes, scores = n.arg(0).tensor, n.arg(1).tensor
        if boxes.rank != 3 or scores.rank != 3 or may_differ(boxes.shape[2], 4):
            raise Refusal(f"boxes {boxes} with scores {scores}")
        pairs = ((boxes.shape[0], scores.shape[0]), (boxes.shape[1], scores.shape[2]))
        if any(may_differ(p, q) for p, q in pairs) or boxes.dtype is not dtypes.f32:
            raise Refusal(f"boxes {boxes} with scores {scores}")
        for i in range(2, len(n.inputs)):
            v = n.input(i)
            if v is not None and may_differ(v.tensor.size, 1):
                raise Refusal(f"input {i} is not one number")
        each = boxes.shape[1]
        limit = n.input(2)
        if limit is None:
            each = 0
        elif limit.data is not None:
            each = dims.minimum(each, max(int(limit.data.reshape(-1)[0]), 0))
        most = dims.product((scores.shape[0], scores.shape[1], each))
        return [TensorType((found("boxes", most), 3), dtypes.i64)]

    def ref(self, n: Node, boxes: Any, scores: Any, most: Any = None, overlap: Any = None,
            least: Any = None) -> Any:  # fmt: skip
        limit = 0 if most is None else int(np.reshape(most, -1)[0])
        too_much = np.float32(0 if overlap is None else np.reshape(overlap, -1)[0])
        out = []
        for b, c in np.ndindex(*scores.shape[:2]):
            s = scores[b, c]
            order = [int(i) for i in np.argsort(-s, kind="stable")]
            if least is not None:
                order = [i for i in order if s[i] > np.reshape(least, -1)[0]]
            chosen: list[int] = []
            for i in order:
                if len(chosen) >= limit:
                    break
                if all(self._overlap(boxes[b, i], boxes[b, j]) <= too_much for j in chosen):
                    chosen.append(i)
            out += [(b, c, i) for i in chosen]
        return np.array(out, np.int64).reshape(-1, 3)

    def _overlap(self, p: Any, q: Any) -> Any:
        (t1, l1, b1, r1), (t2, l2, b2, r2) = self._corners(p), self._corners(q)
        inner = max(min(b1, b2) - max(t1, t2), np.float32(0)) * max(
            min(r1, r2) - max(l1, l2), np.float32(0))  # fmt: skip
        outer = (b1 - t1) * (r1 - l1) + (b2 - t2) * (r2 - l2) - inner
        return inner / outer if outer > 0 else np.float32(0)

    def _corners(self, p: Any) -> tuple[Any, Any, Any, Any]:
        if self.center_point_box:
            x, y, w, h = p
            return y - h / 2, x - w / 2, y + h / 2, x + w / 2
        return min(p[0], p[2]), min(p[1], p[3]), max(p[0], p[2]), max(p[1], p[3])

    def lower(self, k: Lowering) -> Lowered:
        boxes, scores = k.x(0), k.x(1)
        checks = [
            f"if ({k.dim(p)} != {k.dim(q)}) OF_STOP(OF_BAD_SIZE);"
            for p, q in ((boxes.shape[0], scores.shape[0]), (boxes.shape[1], scores.shape[2]))
            if p != q
        ]
        limit = "(int64_t)x2[0]" if k.has(2) else "0"
        passes = f"from[i] > {k.load(4, '0')}" if k.has(4) else "true"
        text = f"""
{chr(10).join(checks)}
const ix n = {k.dim(boxes.shape[1])}, classes = {k.dim(scores.shape[1])};
const int64_t limit = {limit};
const float too_much = {k.load(3, "0") if k.has(3) else "0.0f"};
ix *const order = (ix *)s;
ix count = 0;
#define H(i) order[i]
#define BEFORE(i, j) (from[i] > from[j] || (from[i] == from[j] && (i) < (j)))
for (ix b = 0; b < {k.dim(boxes.shape[0])}; b++) {{
  for (ix c = 0; c < classes; c++) {{
    const float *const from = x1 + (b * classes + c) * n;
    const ix first = count;
    ix m = 0;
    for (ix i = 0; i < n; i++) {{
      if (from[i] == from[i] && {passes}) order[m++] = i;
    }}
    OF_HEAP(H, m, BEFORE);
    OF_UNHEAP(H, m, BEFORE)
    for (ix i = 0; i < m && count - first < limit; i++) {{
      bool free = true;
      const float *const p = x0 + (b * n + order[i]) * 4;
      for (ix j = first; j < count && free; j++) {{
        const float *const q = x0 + (b * n + (ix)y0[j * 3 + 2]) * 4;
        free = !(of_box_overlap(p, q, {int(self.center_point_box)}) > too_much);
      }}
      if (!free) continue;
      y0[count * 3] = b;
      y0[count * 3 + 1] = c;
      y0[count * 3 + 2] = order[i];
      count++;
    }}
  }}
}}
#undef H
#undef BEFORE
{put(k, k.y().shape[0], "count")}"""
        includes = ("of_sort.h", "of_box.h")
        scratch = dims.mul(dims.add(boxes.shape[1], 1), INDEX_BYTES)
        return Code(text, includes, scratch, stops=bool(checks))


class Regions(Op):
    """Pools regions of x [n, c, h, w] to c bins of height by width each."""

    height: int
    width: int

    def pooled(self, n: Node, columns: int) -> Sequence[TensorType]:
        x, rois = n.arg(0).tensor, n.arg(1).tensor
        if x.rank != 4 or rois.rank != 2 or may_differ(rois.shape[1], columns):
            raise Refusal(f"regions {rois} of {x}")
        if not x.dtype.is_float or rois.dtype is not x.dtype or min(self.height, self.width) < 1:
            raise Refusal(f"regions {rois} of {x} in bins of {self.height} by {self.width}")
        if 0 in x.shape[2:]:
            raise Refusal("an empty image has no regions")
        shape = (rois.shape[0], x.shape[1], self.height, self.width)
        return [TensorType(checked_shape(shape), x.dtype)]

    def frame(self, k: Lowering, batch: str, setup: str, body: str) -> Code:
        """Loops over regions, channels and bins; `batch` is C text of a region's image."""
        x, kind = k.x(0), k.x(0).dtype.compute
        n, c, h, w = (k.dim(d) for d in x.shape)
        empty = any(dims.bounds(d)[0] < 1 for d in x.shape[2:])
        text = f"""
typedef {kind.ctype} real;
const ix h = {h}, w = {w};
{"if (h < 1 || w < 1) OF_STOP(OF_BAD_SIZE);" if empty else ""}
for (ix r = 0; r < {k.dim(k.x(1).shape[0])}; r++) {{
  const int64_t image = {batch};
  if (image < 0 || image >= {n}) OF_STOP(OF_BAD_INDEX);
{setup}
  for (ix c = 0; c < {c}; c++) {{
    const ix from = ((ix)image * {c} + c) * h * w;
    for (ix p = 0; p < {self.height}; p++) {{
      for (ix q = 0; q < {self.width}; q++) {{
        real value = 0;
{body}
        {k.store(0, f"((r * {c} + c) * {self.height} + p) * {self.width} + q", "value")}
      }}
    }}
  }}
}}"""
        return Code(text, stops=True)


@operator
class RoiAlign(Regions):
    """Average (or maximum) of bilinear samples in each bin of regions [r, 4] (x1, y1, x2, y2).

    Inputs: x, regions, image of each region (int64 [r]). sampling 0: as many samples as elements.
    half_pixel: coordinates are those of pixel borders. Mode "max" takes the largest weighted
    neighbour, as ONNX defines it.
    """

    height: int = 1
    width: int = 1
    sampling: int = 0
    scale: float = 1.0
    mode: str = "avg"
    half_pixel: bool = True
    onnx: ClassVar = ("RoiAlign",)
    cases: ClassVar = tuple(
        Case((((2, 3, 6, 7), "f32"),
              np.array([[0, 0, 5, 4], [1.5, 2, 9, 7], [3, 3, 3, 3]], np.float32),
              np.array([0, 1, 1])),
             {"height": 2, "width": 3, "mode": m, "half_pixel": h, "sampling": s})
        for m, h, s in (("avg", True, 2), ("avg", False, 0), ("max", True, 2))
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        if self.mode not in ("avg", "max") or not 0 <= self.sampling <= MAX_GRID:
            raise Refusal(f"mode '{self.mode}' with {self.sampling} samples")
        index = n.arg(2).tensor
        if index.rank != 1 or index.dtype not in (dtypes.i64, dtypes.i32):
            raise Refusal(f"images of the regions are {index}")
        if not n.arg(1).shape or may_differ(index.shape[0], n.arg(1).shape[0]):
            raise Refusal(f"{index.shape[0]} images for regions {list(n.arg(1).shape)}")
        return self.pooled(n, 4)

    def ref(self, n: Node, x: Any, rois: Any, images: Any) -> Any:
        kind = np.float64 if x.dtype == np.float64 else np.float32
        y = np.zeros((len(rois), x.shape[1], self.height, self.width), kind)
        for r, (roi, image) in enumerate(zip(rois.astype(kind), images, strict=True)):
            left, top, right, bottom = roi * kind(self.scale) - kind(0.5 if self.half_pixel else 0)
            w, h = right - left, bottom - top
            if not self.half_pixel:
                w, h = max(w, kind(1)), max(h, kind(1))
            bh, bw = h / self.height, w / self.width
            gh = self.sampling or max(int(np.ceil(bh)), 0)
            gw = self.sampling or max(int(np.ceil(bw)), 0)
            for p, q in np.ndindex(self.height, self.width):
                samples = [
                    self._sample(x[image].astype(kind), top + p * bh + (i + 0.5) * bh / gh,
                                 left + q * bw + (j + 0.5) * bw / gw)
                    for i in range(gh) for j in range(gw)
                ]  # fmt: skip
                if samples:
                    y[r, :, p, q] = (
                        np.max(samples, 0) if self.mode == "max" else np.mean(samples, 0)
                    )
        return y.astype(x.dtype)

    def _sample(self, x: Any, row: Any, column: Any) -> Any:
        _, h, w = x.shape
        if row < -1 or row > h or column < -1 or column > w:
            return np.zeros(len(x), x.dtype)
        row, column = min(max(row, 0), h - 1), min(max(column, 0), w - 1)
        i, j = min(int(row), h - 1), min(int(column), w - 1)
        a, b = row - i, column - j
        k, m = min(i + 1, h - 1), min(j + 1, w - 1)
        parts = [x[:, i, j] * (1 - a) * (1 - b), x[:, i, m] * (1 - a) * b,
                 x[:, k, j] * a * (1 - b), x[:, k, m] * a * b]  # fmt: skip
        return np.max(parts, 0) if self.mode == "max" else np.sum(parts, 0)

    def lower(self, k: Lowering) -> Lowered:
        kind = k.x(0).dtype.compute.name
        offset = 0.5 if self.half_pixel else 0
        at = [k.load(1, f"r * 4 + {j}") for j in range(4)]
        least = "" if self.half_pixel else (
            f"  wide = of_max_{kind}(wide, 1);\n  high = of_max_{kind}(high, 1);\n")  # fmt: skip
        grid = str(self.sampling) if self.sampling else "(ix)of_ceil_{}({})"
        setup = f"""
  const real scale = (real){float(self.scale)!r}, offset = (real){offset};
  const real left = {at[0]} * scale - offset, top = {at[1]} * scale - offset;
  real wide = {at[2]} * scale - offset - left, high = {at[3]} * scale - offset - top;
{least}  const real bh = high / {self.height}, bw = wide / {self.width};
  if (!(of_abs_{kind}(bh) < {MAX_GRID} && of_abs_{kind}(bw) < {MAX_GRID})) OF_STOP(OF_BAD_VALUE);
  const ix gh = {grid.format(kind, "bh")}, gw = {grid.format(kind, "bw")};"""
        loads = [k.load(0, f"from + {a} * w + {b}") for a in ("i0", "i1") for b in ("j0", "j1")]
        ways = ["(1 - a) * (1 - b)", "(1 - a) * b", "a * (1 - b)", "a * b"]
        terms = [f"{v} * ({way})" for v, way in zip(loads, ways, strict=True)]
        if self.mode == "max":
            inner = f"of_max_{kind}(of_max_{kind}({terms[0]}, {terms[1]}), " + (
                f"of_max_{kind}({terms[2]}, {terms[3]}))")  # fmt: skip
            gather = f"value = i + j ? of_max_{kind}(value, v) : v;"
            end = ""
        else:
            inner, gather = " + ".join(terms), "value += v;"
            end = "\n        if (gh * gw > 0) value /= (real)(gh * gw);"
        body = f"""
        for (ix i = 0; i < gh; i++) {{
          for (ix j = 0; j < gw; j++) {{
            real y = top + (real)p * bh + ((real)i + (real)0.5) * bh / (real)gh, v = 0;
            real x = left + (real)q * bw + ((real)j + (real)0.5) * bw / (real)gw;
            if (y >= -1 && y <= (real)h && x >= -1 && x <= (real)w) {{
              y = of_clamp_{kind}(y, 0, (real)(h - 1));
              x = of_clamp_{kind}(x, 0, (real)(w - 1));
              const ix i0 = of_min_ix((ix)y, h - 1), i1 = of_min_ix(i0 + 1, h - 1);
              const ix j0 = of_min_ix((ix)x, w - 1), j1 = of_min_ix(j0 + 1, w - 1);
              const real a = y - (real)i0, b = x - (real)j0;
              v = {inner};
            }}
            {gather}
          }}
        }}{end}"""
        check = _same_count(k)
        code = self.frame(k, "(int64_t)x2[r]", setup, body)
        return Code(check + code.text, code.includes, stops=True)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        how = n.attr("coordinate_transformation_mode",
                     "half_pixel" if n.opset >= 16 else "output_half_pixel")  # fmt: skip
        op = cls(
            int(n.attr("output_height", 1)), int(n.attr("output_width", 1)),
            int(n.attr("sampling_ratio", 0)), float(n.attr("spatial_scale", 1.0)),
            n.attr("mode", "avg"), how == "half_pixel",
        )  # fmt: skip
        return [b.op(op, n.arg(0), n.arg(1), n.arg(2), name=n.output_names)]


def _same_count(k: Lowering) -> str:
    p, q = k.x(1).shape[0], k.x(2).shape[0]
    return "" if p == q else f"if ({k.dim(p)} != {k.dim(q)}) OF_STOP(OF_BAD_SIZE);\n"


def _bin(i: int, size: Any, start: Any, extent: int) -> slice:
    """The elements of bin i of an axis, as far as they lie inside."""
    ends = np.clip([np.floor(i * size) + start, np.ceil((i + 1) * size) + start], 0, extent)
    return slice(int(ends[0]), int(ends[1]))


@operator
class MaxRoiPool(Regions):
    """The maximum in each bin of regions [r, 5] (image, x1, y1, x2, y2), borders rounded."""

    height: int = 1
    width: int = 1
    scale: float = 1.0
    onnx: ClassVar = ("MaxRoiPool",)
    cases: ClassVar = (
        Case((((2, 3, 6, 7), "f32"),
              np.array([[0, 0, 0, 5, 4], [1, 1.5, 2, 9, 7], [1, 3, 3, 3, 3]], np.float32)),
             {"height": 2, "width": 3}),
        Case((((1, 1, 4, 4), "f64"), np.array([[0, -3, -3, -1, -1]], np.float64)),
             {"height": 1, "width": 1}),
        Case((((1, 2, 9, 9), "f32"), np.array([[0, 2, 0, 16, 12]], np.float32)),
             {"height": 3, "width": 3, "scale": 0.5}),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        return self.pooled(n, 5)

    def ref(self, n: Node, x: Any, rois: Any) -> Any:
        kind = np.float64 if x.dtype == np.float64 else np.float32
        y = np.zeros((len(rois), x.shape[1], self.height, self.width), x.dtype)
        for r, roi in enumerate(rois.astype(kind)):
            v = roi[1:] * kind(self.scale)
            left, top, right, bottom = np.trunc(v + np.copysign(kind(0.5), v)).astype(int)
            bh = kind(max(bottom - top + 1, 1)) / kind(self.height)
            bw = kind(max(right - left + 1, 1)) / kind(self.width)
            for p, q in np.ndindex(self.height, self.width):
                rows = _bin(p, bh, top, x.shape[2])
                part = x[int(roi[0]), :, rows, _bin(q, bw, left, x.shape[3])]
                if part.size:
                    y[r, :, p, q] = part.max((1, 2))
        return y

    def lower(self, k: Lowering) -> Lowered:
        kind = k.x(0).dtype.compute.name
        at = [k.load(1, f"r * 5 + {j}") for j in range(5)]
        borders = "\n".join(
            f"  const real {name} = of_round_away_{kind}({at[1 + j]} * scale);"
            for j, name in enumerate(("left", "top", "right", "bottom"))
        )
        setup = f"""
  const real scale = (real){float(self.scale)!r};
{borders}
  const real bh = of_max_{kind}(bottom - top + 1, 1) / {self.height};
  const real bw = of_max_{kind}(right - left + 1, 1) / {self.width};"""

        def edge(f: str, i: str, b: str, start: str, end: str) -> str:
            v = f"of_{f}_{kind}((real)({i}) * {b}) + {start}"
            return f"(ix)of_clamp_{kind}({v}, 0, (real){end})"

        body = f"""
        const ix i0 = {edge("floor", "p", "bh", "top", "h")};
        const ix i1 = {edge("ceil", "p + 1", "bh", "top", "h")};
        const ix j0 = {edge("floor", "q", "bw", "left", "w")};
        const ix j1 = {edge("ceil", "q + 1", "bw", "left", "w")};
        if (i0 < i1 && j0 < j1) value = -OF_INF_F32;
        for (ix i = i0; i < i1; i++)
          for (ix j = j0; j < j1; j++)
            value = of_max_{kind}(value, {k.load(0, "from + i * w + j")});"""
        batch = f"of_{kind}_to_i64(of_floor_{kind}({at[0]}))"
        total = f"of_abs_{kind}(left + top + right + bottom)"
        finite = f"  if (!({total} < 1e9)) OF_STOP(OF_BAD_VALUE);"
        return self.frame(k, batch, setup + "\n" + finite, body)

    @classmethod
    def from_onnx(cls, n: OnnxNode, b: Builder) -> Sequence[Value]:
        shape = n.attr("pooled_shape", ())
        if len(shape) != 2:
            raise Refusal(f"pooled_shape {list(shape)} is not that of an image")
        op = cls(int(shape[0]), int(shape[1]), float(n.attr("spatial_scale", 1.0)))
        return [b.op(op, n.arg(0), n.arg(1), name=n.output_names)]
