"""TFLite's detection post-processing: boxes from anchors, then non-maximum suppression.

Source of the algorithm: TFLite's custom operator TFLite_Detection_PostProcess.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.codegen.text import literal
from onefold.ir import dtypes
from onefold.ir.graph import Node
from onefold.ir.types import TensorType
from onefold.ops.base import Case, Code, Lowered, Lowering, Op, Refusal, operator

F = np.float32
MAX_DETECTIONS = 1 << 16


@operator
class DetectionPostProcess(Op):
    """boxes [1, n, >= 4] as (y, x, h, w) relative to anchors [n, 4], scores [1, n, classes (+ 1 for
    the background, which comes first)], all f32 -> boxes [1, d, 4] as (top, left, bottom, right),
    classes [1, d], scores [1, d], count [1], all f32; d = max_detections * classes per detection.

    regular: suppression for each class by itself; else only each box's best class counts.
    """

    max_detections: int = 10
    classes_per_detection: int = 1
    detections_per_class: int = 100
    num_classes: int = 1
    score_threshold: float = 0.0
    iou_threshold: float = 0.5
    scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # y, x, h, w
    regular: bool = False

    @property
    def kept(self) -> int:
        """Classes kept of each detection."""
        return 1 if self.regular else min(self.classes_per_detection, self.num_classes)

    def infer(self, n: Node) -> Sequence[TensorType]:
        box, score, anchor = (n.arg(k).tensor for k in range(3))
        if any(t.dtype is not dtypes.f32 for t in (box, score, anchor)):
            raise Refusal("its inputs must be float32 by now")
        if box.rank != 3 or score.rank != 3 or anchor.rank != 2 or not box.static:
            raise Refusal(f"boxes {box.shape}, scores {score.shape}, anchors {anchor.shape}")
        count, width = box.ints[1], box.ints[2]
        background = score.ints[2] - self.num_classes
        if box.ints[0] != 1 or width < 4 or score.ints[:2] != (1, count) or not score.static:
            raise Refusal(f"boxes {box.shape} and scores {score.shape}")
        if anchor.ints != (count, 4) or background not in (0, 1) or self.num_classes < 1:
            raise Refusal(f"{self.num_classes} classes, anchors {anchor.shape}")
        if min(self.classes_per_detection, self.detections_per_class) < 1:
            raise Refusal("no class or no detection is asked for")
        d = self.max_detections * max(self.kept, 1)
        if not 1 <= d <= MAX_DETECTIONS or not 0 < self.iou_threshold <= 1 or 0.0 in self.scales:
            raise Refusal(f"{d} detections, threshold {self.iou_threshold}, scales {self.scales}")
        shapes: list[tuple[int, ...]] = [(1, d, 4), (1, d), (1, d), (1,)]
        return [TensorType(s, dtypes.f32) for s in shapes]

    def decoded(self, x: Any, anchor: Any) -> Any:
        """Corner boxes [n, 4]."""
        a, e = anchor.astype(np.float64), x[0, :, :4].astype(np.float64) / np.array(self.scales)
        with np.errstate(over="ignore", invalid="ignore"):
            centre = (e[:, :2] * a[:, 2:] + a[:, :2]).astype(F)
            half = (0.5 * np.exp(e[:, 2:]) * a[:, 2:]).astype(F)
            return np.concatenate([centre - half, centre + half], axis=1)

    def greedy(self, boxes: Any, scores: Any, most: int) -> list[int]:
        """Best first; each drops those that overlap it too much."""
        active = scores >= F(self.score_threshold)
        out: list[int] = []
        while active.any() and len(out) < most:
            best = int(np.argmax(np.where(active, scores, -np.inf)))
            if not active[best]:
                best = int(np.argmax(active))
            out.append(best)
            active[best] = False
            active &= ~(_overlap(boxes[best], boxes) > F(self.iou_threshold))
        return out

    def ref(self, n: Node, *x: Any) -> Any:
        boxes = self.decoded(x[0], x[2])
        scores = x[1][0][:, x[1].shape[2] - self.num_classes :]
        found: list[tuple[int, int]] = []
        if self.regular:
            for c in range(self.num_classes):
                picked = self.greedy(boxes, scores[:, c], self.detections_per_class)
                found += [(i, c) for i in picked]
                found.sort(key=lambda t: -scores[t])
                found = found[: self.max_detections]
        else:
            for i in self.greedy(boxes, scores.max(axis=1), self.max_detections):
                found += [(i, int(c)) for c in np.argsort(-scores[i], kind="stable")[: self.kept]]
        d = self.max_detections * self.kept
        out = np.zeros((1, d, 4), F), np.zeros((1, d), F), np.zeros((1, d), F)
        for k, (i, c) in enumerate(found):
            out[0][0, k], out[1][0, k], out[2][0, k] = boxes[i], c, scores[i, c]
        return (*out, np.array([len(found)], F))

    def lower(self, k: Lowering) -> Lowered:
        count, width = k.x(0).shape[1], k.x(0).shape[2]
        every, first = k.x(1).shape[2], k.x(1).shape[2] - self.num_classes
        d = self.max_detections * self.kept
        sy, sx, sh, sw = (literal(v, dtypes.f64) for v in self.scales)
        head = f"""
float *box = (float *)s, *best = box + 4 * {count};
uint8_t *active = (uint8_t *)(best + {count});
for (ix i = 0; i < {count}; i++) {{
  const float *e = x0 + i * {width}, *a = x2 + 4 * i;
  const float cy = (float)(e[0] / {sy} * a[2] + a[0]), cx = (float)(e[1] / {sx} * a[3] + a[1]);
  const float h = (float)(0.5 * of_exp_f64(e[2] / {sh}) * a[2]);
  const float w = (float)(0.5 * of_exp_f64(e[3] / {sw}) * a[3]);
  box[4 * i] = cy - h, box[4 * i + 1] = cx - w, box[4 * i + 2] = cy + h, box[4 * i + 3] = cx + w;
}}
for (ix i = 0; i < {4 * d}; i++) y0[i] = 0.0f;
for (ix i = 0; i < {d}; i++) y1[i] = y2[i] = 0.0f;
ix found = 0;"""
        pick = f"""of_pick_box(best, active, {count})"""
        drop = (
            f"of_drop_overlaps(box, active, {count}, i, {literal(self.iou_threshold, dtypes.f32)});"
        )
        threshold = literal(self.score_threshold, dtypes.f32)
        if self.regular:
            body = f"""
for (ix c = 0; c < {self.num_classes}; c++) {{
  for (ix i = 0; i < {count}; i++) {{
    best[i] = x1[i * {every} + {first} + c];
    active[i] = best[i] >= {threshold};
  }}
  ix i;
  for (ix got = 0; got < {self.detections_per_class} && (i = {pick}) >= 0; got++) {{
    {drop}
    ix at = found < {d} ? found++ : {d};
    if (at == {d} && !(best[i] > y2[{d - 1}])) continue;
    if (at == {d}) at--;
    for (; at > 0 && best[i] > y2[at - 1]; at--) {{
      y1[at] = y1[at - 1], y2[at] = y2[at - 1];
      for (ix j = 0; j < 4; j++) y0[4 * at + j] = y0[4 * at - 4 + j];
    }}
    y1[at] = (float)c, y2[at] = best[i];
    for (ix j = 0; j < 4; j++) y0[4 * at + j] = box[4 * i + j];
  }}
}}"""
        else:
            body = f"""
for (ix i = 0; i < {count}; i++) {{
  const float *p = x1 + i * {every} + {first};
  best[i] = p[0];
  for (ix c = 1; c < {self.num_classes}; c++) best[i] = p[c] > best[i] ? p[c] : best[i];
  active[i] = best[i] >= {threshold};
}}
ix i;
for (ix got = 0; got < {self.max_detections} && (i = {pick}) >= 0; got++) {{
  {drop}
  const float *p = x1 + i * {every} + {first};
  ix last = -1;
  for (ix m = 0; m < {self.kept}; m++, found++) {{
    ix top = -1;
    for (ix c = 0; c < {self.num_classes}; c++) {{
      const bool open = last < 0 || p[c] < p[last] || (p[c] == p[last] && c > last);
      if (open && (top < 0 || p[c] > p[top])) top = c;
    }}
    last = top < 0 ? 0 : top;
    y1[found] = (float)last, y2[found] = p[last];
    for (ix j = 0; j < 4; j++) y0[4 * found + j] = box[4 * i + j];
  }}
}}"""
        size = k.x(0).type.ints[1] * 21
        return Code(head + body + "\ny3[0] = (float)found;", ("of_detect.h",), scratch=size)

    cases: ClassVar = tuple(
        Case((((1, 9, 4), "f32"), ((1, 9, classes + extra), "f32"), ((9, 4), "f32")),
             {"num_classes": classes, "regular": regular, "classes_per_detection": kept,
              "max_detections": 5, "detections_per_class": 4, "score_threshold": -1.0},
             seed, -1.0, 1.0)
        for seed, (classes, extra, regular, kept) in enumerate(
            [(4, 1, False, 1), (3, 0, False, 2), (3, 1, True, 1), (1, 1, True, 1)])
    )  # fmt: skip


def _overlap(one: Any, all: Any) -> Any:
    """Intersection over union of a box with each of the boxes; 0 where one is empty."""
    top, low = np.maximum(one[:2], all[:, :2]), np.minimum(one[2:], all[:, 2:])
    common = np.maximum(low - top, F(0)).prod(axis=1, dtype=F)
    area = (all[:, 2] - all[:, 0]) * (all[:, 3] - all[:, 1])
    own = (one[2] - one[0]) * (one[3] - one[1])
    with np.errstate(all="ignore"):
        return np.where((area > 0) & (own > 0), common / (area + own - common), F(0))
