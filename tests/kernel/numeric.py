"""The numeric headers as array functions: a shared library per set of flags, called by ctypes."""

from __future__ import annotations

import ctypes
import math
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

KERNELS = Path(__file__).parents[2] / "src" / "onefold" / "kernels"
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fwrapv",
    "-ffreestanding",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-command-line-argument",
]
C_TYPES = {
    "f32": "float",
    "f64": "double",
    "i8": "int8_t",
    "u8": "uint8_t",
    "i16": "int16_t",
    "u16": "uint16_t",
    "i32": "int32_t",
    "u32": "uint32_t",
    "i64": "int64_t",
    "u64": "uint64_t",
}
NP_TYPES = {
    "f32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "u8": np.uint8,
    "i16": np.int16,
    "u16": np.uint16,
    "i32": np.int32,
    "u32": np.uint32,
    "i64": np.int64,
    "u64": np.uint64,
}
INTS = ["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"]
UNARY = (
    "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt cbrt sin cos tan asin acos atan sinh cosh tanh"
    " asinh acosh atanh erf erfc tgamma lgamma sigmoid softplus mish gelu gelu_tanh silu floor ceil"
    " trunc round_even round_away sign abs"
).split()
BINARY = "pow atan2 fmod mod floor_div min max fmin fmax copysign".split()
# Every test runs on three builds: this machine with all it has, its architecture's baseline (on
# x86 neither FMA nor a rounding instruction), and plain C for everything.
BASELINE = ["-mcpu=x86_64"] if platform.machine() == "x86_64" else ["-mcpu=generic"]
BUILDS = {
    "native": ["-march=native"],
    "baseline": ["-target", f"{platform.machine()}-linux-gnu", *BASELINE],
    "portable": ["-march=native", "-DOF_PORTABLE"],
}

SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, 2.0, 4.0, 1e-40, -1e-40]
F8 = ["f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz"]


def signatures() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Function name -> (result type, argument types), for every function that takes scalars."""
    table: dict[str, tuple[str, tuple[str, ...]]] = {}
    for t in ("f32", "f64"):
        table |= {f"of_{f}_{t}": (t, (t,)) for f in UNARY}
        table |= {f"of_{f}_{t}": (t, (t, t)) for f in BINARY}
        table |= {f"of_is{f}_{t}": ("u8", (t,)) for f in ("nan", "inf")}
        table[f"of_clamp_{t}"] = (t, (t, t, t))
        table |= {f"of_{t}_to_{i}": (i, (t,)) for i in INTS}
        table |= {f"of_{t}_to_{i}_wrap": (i, (t,)) for i in INTS if i != "u64"}
        table |= {f"of_{t}_to_{h}": ("u16", (t,)) for h in ("f16", "bf16")}
        table |= {f"of_{h}_to_{t}": (t, ("u16",)) for h in ("f16", "bf16")}
        table |= {f"of_{t}_to_{f}": ("u8", (t, "u8")) for f in F8}
        table |= {f"of_{f}_to_{t}": (t, ("u8",)) for f in F8}
    table["of_f32_to_f4e2m1"] = ("u8", ("f32",))
    table["of_f4e2m1_to_f32"] = ("f32", ("u8",))
    table["of_f32_to_f8e8m0fnu"] = ("u8", ("f32", "u8", "u8"))
    table["of_f8e8m0fnu_to_f32"] = ("f32", ("u8",))
    for t in INTS:
        unsigned = "u" + t[1:]
        table |= {f"of_{f}_{t}": (t, (t,)) for f in ("abs", "sign")}
        binary = "min max div fmod mod floor_div pow".split()
        table |= {f"of_{f}_{t}": (t, (t, t)) for f in binary}
        table |= {f"of_{f}_{t}": (t, (t, unsigned)) for f in ("shl", "shr")}
        table[f"of_clamp_{t}"] = (t, (t, t, t))
    return table | quantized()


def quantized() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The fixed-point part of the table."""
    table: dict[str, tuple[str, tuple[str, ...]]] = {
        "of_sat_rounding_doubling_high_mul": ("i32", ("i32", "i32")),
        "of_sat_rounding_doubling_high_mul_i16": ("i16", ("i16", "i16")),
        "of_sat_doubling_high_mul_i16": ("i16", ("i16", "i16")),
        "of_rounding_divide_by_pot": ("i32", ("i32", "i32")),
        "of_saturating_rounding_multiply_by_pot": ("i32", ("i32", "i32")),
        "of_saturating_rounding_multiply_by_pot_i16": ("i16", ("i16", "i32")),
        "of_saturating_left_shift_i16": ("i16", ("i16", "i32")),
        "of_multiply_by_quantized_multiplier_i64": ("i32", ("i64", "i32", "i32")),
        "of_table_sigmoid_i16": ("i16", ("i16", "i32", "i32")),
        "of_table_tanh_i16": ("i16", ("i16", "i32", "i32")),
        "of_dequantize_linear_f32": ("f32", ("i32", "f32", "i32")),
    }
    for tail in ("", "_smaller_than_one", "_greater_than_one", "_single"):
        table[f"of_multiply_by_quantized_multiplier{tail}"] = ("i32", ("i32", "i32", "i32"))
    for t in ("i32", "i16"):
        table |= {
            f"of_{f}_{t}": (t, (t, "i32"))
            for f in ("exp_on_negative_values", "fixed_logistic", "fixed_tanh")
        }
        table |= {
            f"of_{f}_{t}": (t, (t,)) for f in ("one_over_one_plus_x", "one_minus_x_over_one_plus_x")
        }
    for t, base in (("i8", "i8"), ("u8", "u8"), ("i16", "i16"), ("u16", "u16"), ("i4", "i8")):
        table[f"of_requant_f32_{t}"] = (base, ("f32", "f32", "i32", "i32", "i32"))
        table[f"of_quantize_linear_{t}"] = (base, ("f32", "f32", "i32"))
        table[f"of_affine_quantize_{t}"] = (base, ("f32", "f32", "i32"))
    return table


SIGNATURES = signatures()


def wrapper(name: str) -> str:
    """C text of the array form of one function."""
    result, arguments = SIGNATURES[name]
    parameters = "".join(f", const {C_TYPES[t]} *a{i}" for i, t in enumerate(arguments))
    values = ", ".join(f"a{i}[i]" for i in range(len(arguments)))
    return (
        f"void array_{name}(long n, {C_TYPES[result]} *restrict y{parameters}) {{\n"
        f"  for (long i = 0; i < n; i++) y[i] = {name}({values});\n}}\n"
    )


POINTER_RESULTS = """
void array_inv_sqrt(long n, const int32_t *x, int32_t *multiplier, int32_t *shift) {
  for (long i = 0; i < n; i++) {
    int s;
    of_get_inv_sqrt_multiplier(x[i], -1, multiplier + i, &s);
    shift[i] = s;
  }
}
void array_reciprocal(long n, const int32_t *x, int32_t digits, int32_t *scale, int32_t *bits) {
  for (long i = 0; i < n; i++) {
    int b;
    scale[i] = of_get_reciprocal(x[i], digits, &b);
    bits[i] = b;
  }
}
void array_lut(long n, const int16_t *x, const int16_t *lut, int16_t *y) {
  for (long i = 0; i < n; i++) y[i] = of_lut_i16(x[i], lut);
}
"""


def source(names: list[str]) -> str:
    """A C file with the array form of the named functions."""
    return '#include "num.h"\n' + "".join(wrapper(n) for n in names)


def zig(*arguments: str | Path) -> None:
    """Run zig cc; its messages are the exception's text."""
    command = [sys.executable, "-m", "ziglang", "cc", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def build(folder: Path, name: str, flags: list[str]) -> ctypes.CDLL:
    """All functions as one shared library for this machine."""
    text, library = folder / f"{name}.c", folder / f"{name}.so"
    text.write_text(source(list(SIGNATURES)) + POINTER_RESULTS)
    zig(*FLAGS, *flags, "-fPIC", "-shared", "-I", KERNELS, text, "-o", library)
    return ctypes.CDLL(str(library))


def call(library: ctypes.CDLL, name: str, *arguments: Any) -> np.ndarray[Any, Any]:
    """Apply ``of_<name>`` elementwise; arguments broadcast and are cast to its types."""
    result, types = SIGNATURES["of_" + name]
    arrays = np.broadcast_arrays(
        *(np.asarray(a).astype(NP_TYPES[t]) for a, t in zip(arguments, types, strict=True))
    )
    arrays = [np.ascontiguousarray(a) for a in arrays]
    y = np.empty(arrays[0].shape, NP_TYPES[result])
    function = getattr(library, f"array_of_{name}")
    function(ctypes.c_long(y.size), *(ctypes.c_void_p(a.ctypes.data) for a in [y, *arrays]))
    return y


def every_pattern(t: str, count: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Floats of uniformly random bits."""
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    wide = rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    return bits if t == "f32" else wide


def same_float(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    """Equal values, equal signs of zero, NaN with NaN."""
    np.testing.assert_array_equal(got, want)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))
