"""What the compiler makes of the numeric headers: no library calls anywhere, and vector loops."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from tests.kernel.numeric import FLAGS, KERNELS, POINTER_RESULTS, SIGNATURES, source, zig

pytestmark = pytest.mark.toolchain

TARGETS = {
    "m0": ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"],
    "m3": ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3"],
    "m4f": ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"],
    "m7d": ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16"],
    "m33f": ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m33+dsp+fp_armv8d16sp"],
    "m55": ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve_fp+fp_armv8d16"],
    "armv7": ["-target", "arm-freestanding-eabihf", "-mcpu=cortex_a9"],
    "aarch64": ["-target", "aarch64-freestanding"],
    "riscv64": ["-target", "riscv64-freestanding", "-mcpu=generic_rv64+m+a+f+d+c"],
    "riscv32": ["-target", "riscv32-freestanding", "-mcpu=generic_rv32+m+c"],
    "x86_64": ["-target", "x86_64-freestanding", "-mcpu=x86_64"],
    "x86_64_v3": ["-target", "x86_64-freestanding", "-mcpu=x86_64_v3"],
}
# Memory functions, and the integer and float arithmetic of compiler-rt. Conversions of half floats
# (__extendhfsf2, __aeabi_h2f) are arithmetic too, but slower than the headers' own.
ARITHMETIC = re.compile(
    r"mem(cpy|set|move|cmp)$|__aeabi_(?!h2f|f2h|d2h)\w+$"
    r"|__(u?div|u?mod|u?divmod|mul|ashl|ashr|lshr|clz|ctz)[sdt]i[34]?2?$"
    r"|__(add|sub|mul|div|neg|lt|le|gt|ge|eq|ne|unord|cmp)[sd]f[23]$"
    r"|__(fix|fixuns|float|floatun)(sf|df|si|di)(sf|df|si|di)$"
    r"|__extendsfdf2$|__truncdfsf2$"
)


def undefined_symbols(path: Path) -> set[str]:
    """Names that an ELF object refers to and does not define."""
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF"
    wide = data[4] == 2
    start = (
        struct.unpack_from("<Q", data, 0x28)[0] if wide else struct.unpack_from("<I", data, 0x20)[0]
    )
    size, count = struct.unpack_from("<HH", data, 0x3A if wide else 0x2E)
    sections = [
        struct.unpack_from("<IIQQQQIIQQ" if wide else "<IIIIIIIIII", data, start + i * size)
        for i in range(count)
    ]
    names: set[str] = set()
    for section in (s for s in sections if s[1] == 2):  # SHT_SYMTAB
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], section[9]):
            name, index = struct.unpack_from("<I", data, at)[0], 0
            index = struct.unpack_from("<H", data, at + (6 if wide else 14))[0]
            if index == 0 and name:
                end = data.index(b"\0", strings + name)
                names.add(data[strings + name : end].decode())
    return names


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_of_libm_is_called(target: str, tmp_path: Path) -> None:
    text, made = tmp_path / "num.c", tmp_path / "num.o"
    text.write_text(source(list(SIGNATURES)) + POINTER_RESULTS)
    zig(*FLAGS, *TARGETS[target], "-I", KERNELS, "-c", text, "-o", made)
    names = undefined_symbols(made)
    assert sorted(n for n in names if not ARITHMETIC.match(n)) == []


@pytest.mark.parametrize("features", ["generic", "generic+simd128"])
def test_nothing_of_libm_is_called_in_wasm(features: str, tmp_path: Path) -> None:
    text, made = tmp_path / "num.c", tmp_path / "num.s"
    text.write_text(source(list(SIGNATURES)) + POINTER_RESULTS)
    target = ["-target", "wasm32-freestanding", f"-mcpu={features}"]
    zig(*FLAGS, *target, "-I", KERNELS, "-S", text, "-o", made)
    assembly = made.read_text()
    called = set(re.findall(r"^\s+call\s+(\w+)", assembly, re.M))
    defined = set(re.findall(r"^(\w+):", assembly, re.M))
    assert called, "no call at all: the pattern no longer reads this assembly"
    assert sorted(n for n in called - defined if not ARITHMETIC.match(n)) == []


VECTOR_TARGETS = {
    "avx2": (["-target", "x86_64-freestanding", "-mcpu=x86_64_v3"], "ymm"),
    "avx512": (["-target", "x86_64-freestanding", "-mcpu=x86_64_v4"], "zmm|ymm"),
    "neon": (["-target", "aarch64-freestanding"], r"v\d+\.(?:4s|2d)"),
}
VECTORISED = [
    *"exp exp2 expm1 log log1p log2 pow sqrt rsqrt tanh sigmoid softplus silu mish gelu".split(),
    *"gelu_tanh erf floor ceil trunc round_even round_away min max abs clamp atan asin".split(),
]
VECTORISED_INTEGER = [
    "of_requant_f32_i8",
    "of_quantize_linear_i8",
    "of_f32_to_i8",
    "of_f16_to_f32",
    "of_f32_to_f16",
    "of_bf16_to_f32",
    "of_f32_to_bf16",
    "of_f32_to_f8e4m3fn",
    "of_multiply_by_quantized_multiplier",
]


@pytest.mark.parametrize("target", VECTOR_TARGETS)
def test_loops_vectorise(target: str, tmp_path: Path) -> None:
    flags, register = VECTOR_TARGETS[target]
    names = [f"of_{n}_f32" for n in VECTORISED] + VECTORISED_INTEGER
    text, made = tmp_path / "num.c", tmp_path / "num.s"
    text.write_text(source(names))
    zig(*FLAGS, *flags, "-I", KERNELS, "-S", text, "-o", made)
    bodies = re.split(r"^array_(\w+):", made.read_text(), flags=re.M)
    body = dict(zip(bodies[1::2], bodies[2::2], strict=True))
    scalar = [n for n in names if len(re.findall(register, body[n])) < 3]
    assert scalar == []
