"""Operators on text, which lives on the host; their references are what runs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from onefold.ir import dims, dtypes
from onefold.ir.graph import Builder, Node, Value
from onefold.ir.types import TensorType
from onefold.ops.base import (
    Case,
    Code,
    Lowered,
    Lowering,
    Op,
    Refusal,
    broadcast_shapes,
    operator,
)
from onefold.ops.known import found
from onefold.ops.sort import less

WHY = "text lives on the host only"


def texts(n: Node, i: int = 0) -> TensorType:
    """The type of input i. Raises Refusal unless it holds text."""
    t = n.arg(i).tensor
    if t.dtype is not dtypes.string:
        raise Refusal(f"{n.op.name} takes text, not {t.dtype.long}")
    return t


def as_text(v: Any) -> str:
    return v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)


def of_texts(items: Sequence[str], shape: Sequence[int]) -> Any:
    out = np.empty(len(items), object)
    out[:] = items
    return out.reshape(tuple(shape))


@operator
class StringConcat(Op):
    """a followed by b, with NumPy broadcasting."""

    onnx: ClassVar = ("StringConcat",)
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[TensorType]:
        a, b = texts(n, 0), texts(n, 1)
        return [TensorType(broadcast_shapes(a.shape, b.shape), dtypes.string)]

    def ref(self, n: Node, a: Any, b: Any) -> Any:
        x, y = np.broadcast_arrays(a, b)
        pairs = zip(x.reshape(-1), y.reshape(-1), strict=True)
        return of_texts([as_text(p) + as_text(q) for p, q in pairs], x.shape)


@operator
class StringSplit(Op):
    """The parts of each text between delimiters, filled up with empty texts, and their numbers.

    An empty delimiter splits at white space; maxsplit None: as often as possible.
    """

    delimiter: str = ""
    maxsplit: int | None = None
    onnx: ClassVar = ("StringSplit",)
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = texts(n)
        parts = TensorType((*t.shape, found("parts", 1 << 62)), dtypes.string)
        return [parts, TensorType(t.shape, dtypes.i64)]

    def ref(self, n: Node, x: Any) -> Any:
        most = -1 if self.maxsplit is None else self.maxsplit
        rows = [as_text(v).split(self.delimiter or None, most) for v in x.reshape(-1)]
        width = max(map(len, rows), default=0)
        flat = [p for row in rows for p in row + [""] * (width - len(row))]
        counts = np.array([len(row) for row in rows], np.int64).reshape(x.shape)
        return of_texts(flat, (*x.shape, width)), counts


@operator
class RegexFullMatch(Op):
    """Whether the pattern matches each text as a whole.

    ONNX says RE2; the syntax understood is that of Python's `re`, which contains nearly all of it.
    """

    pattern: str = ""
    onnx: ClassVar = ("RegexFullMatch",)
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[TensorType]:
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as e:
            raise Refusal(f"the pattern '{self.pattern[:80]}' is not understood: {e}") from None
        return [TensorType(texts(n).shape, dtypes.b1)]

    def ref(self, n: Node, x: Any) -> Any:
        rule = re.compile(self.pattern)
        hits = [rule.fullmatch(as_text(v)) is not None for v in x.reshape(-1)]
        return np.array(hits, bool).reshape(x.shape)


@operator
class StringNormalizer(Op):
    """Texts without accents, in one case, and without stop words; [c] or [1, c]."""

    case_change_action: str = "NONE"
    is_case_sensitive: bool = False
    locale: str = "en_US"
    stopwords: tuple[str, ...] = ()
    onnx: ClassVar = ("StringNormalizer",)
    host_only: ClassVar = WHY

    def infer(self, n: Node) -> Sequence[TensorType]:
        t = texts(n)
        if t.rank not in (1, 2) or (t.rank == 2 and t.shape[0] != 1):
            raise Refusal(f"StringNormalizer of {t}")
        if self.case_change_action not in ("NONE", "LOWER", "UPPER"):
            raise Refusal(f"case_change_action '{self.case_change_action}' is not understood")
        return [TensorType((*t.shape[:-1], found("words", 1 << 62)), dtypes.string)]

    def ref(self, n: Node, x: Any) -> Any:
        change = _CHANGES[self.case_change_action]
        fold: Callable[[str], str] = str if self.is_case_sensitive else str.lower
        stops = {fold(as_text(w)) for w in self.stopwords}
        words = [_plain(as_text(v)) for v in x.reshape(-1)]
        kept = [change(w) for w in words if w and fold(w) not in stops]
        kept = kept or [""]
        return of_texts(kept, (*x.shape[:-1], len(kept)))


_CHANGES: dict[str, Callable[[str], str]] = {"LOWER": str.lower, "UPPER": str.upper, "NONE": str}


def _plain(text: str) -> str:
    """Letters without their accents."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(c for c in parts if not unicodedata.combining(c))


@operator
class ImageDecoder(Op):
    """An encoded image (uint8 [n]) as pixels [h, w, channels], decoded by Pillow.

    pixel_format "RGB", "BGR" or "Grayscale".
    """

    pixel_format: str = "RGB"
    onnx: ClassVar = ("ImageDecoder",)
    host_only: ClassVar = "image files are decoded on the host"

    def infer(self, n: Node) -> Sequence[TensorType]:
        if n.arg(0).dtype is not dtypes.u8 or self.pixel_format not in ("RGB", "BGR", "Grayscale"):
            raise Refusal(f"{n.arg(0).type} decoded to '{self.pixel_format}'")
        channels = 1 if self.pixel_format == "Grayscale" else 3
        size = (found("height", 1 << 20), found("width", 1 << 20))
        return [TensorType((*size, channels), dtypes.u8)]

    def ref(self, n: Node, x: Any) -> Any:
        import io

        from onefold.errors import MissingExtraError

        try:
            from PIL import Image
        except ImportError:
            raise MissingExtraError("pillow", "images", "ImageDecoder") from None
        image = Image.open(io.BytesIO(np.asarray(x).tobytes()))
        if self.pixel_format == "Grayscale":
            return np.array(image.convert("L"))[:, :, None]
        pixels = np.array(image.convert("RGB"))
        return pixels[:, :, ::-1] if self.pixel_format == "BGR" else pixels


@operator
class LabelEncoder(Op):
    """values[k] where keys[k] equals the input, else the default.

    Inputs: x, keys [m] (in ascending order, NaN last), values [m], default (one element).
    """

    exact: ClassVar = True
    cases: ClassVar = (
        Case((np.array([3, 9, -1, 5]), np.array([-1, 3, 5]), np.array([1.5, 2.5, 3.5], np.float32),
              np.array(-1, np.float32))),
        Case((np.array([[1.5, np.nan]], np.float32), np.array([0, 1.5, np.nan], np.float32),
              np.array([7, 8, 9]), np.array(0))),
        Case((np.array([4]), np.zeros(0, np.int64), np.zeros(0, np.int64), np.array(3))),
    )  # fmt: skip

    def infer(self, n: Node) -> Sequence[TensorType]:
        x, keys, values, rest = (n.arg(i).tensor for i in range(4))
        if keys.dtype is not x.dtype or rest.dtype is not values.dtype:
            raise Refusal(f"keys {keys} for {x}, values {values} with the default {rest}")
        if keys.rank != 1 or keys.shape != values.shape or rest.shape != ():
            raise Refusal(f"{keys} keys for {values} values")
        return [TensorType(x.shape, values.dtype)]

    def ref(self, n: Node, x: Any, keys: Any, values: Any, rest: Any) -> Any:
        pairs = zip(keys, values, strict=True)
        known = {_key(k): v for k, v in reversed(list(pairs))}
        out = [known.get(_key(v), rest.reshape(-1)[0]) for v in x.reshape(-1)]
        if values.dtype == object:
            return of_texts(out, x.shape)
        return np.array(out, values.dtype).reshape(x.shape)

    def lower(self, k: Lowering) -> Lowered:
        kind = k.x(0).dtype.compute
        text = f"""
const ix m = {k.dim(k.x(1).shape[0])};
for (ix i = 0; i < {k.dim(dims.product(k.x(0).shape))}; i++) {{
  const {kind.ctype} v = {k.load(0, "i")};
  ix low = 0, high = m;
  while (low < high) {{
    const ix mid = low + (high - low) / 2;
    const {kind.ctype} key = {k.load(1, "mid")};
    if ({less(kind, "key", "v")}) low = mid + 1; else high = mid;
  }}
  bool hit = false;
  if (low < m) {{
    const {kind.ctype} key = {k.load(1, "low")};
    hit = key == v || (key != key && v != v);
  }}
  y0[i] = hit ? x2[low] : x3[0];
}}"""
        return Code(text)

    @classmethod
    def make(cls, b: Builder, x: Value, keys: Any, values: Any, rest: Any, name: Any) -> Value:
        """The operator with its tables sorted and as constants."""
        if keys.dtype == object:
            keys = of_texts([as_text(k) for k in keys], keys.shape)
        order = np.argsort(keys, kind="stable")
        tables = [b.const(keys[order]), b.const(values[order]), b.const(rest)]
        return b.op(cls(), x, *tables, name=name)


def _key(v: Any) -> Any:
    if isinstance(v, (str, bytes)):
        return as_text(v)
    return "nan" if v != v else v.item() if hasattr(v, "item") else v


