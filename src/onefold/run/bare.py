"""The linker script and start-up code of a bare-metal image, from the target's memories."""

from __future__ import annotations

from pathlib import Path

from onefold.errors import TargetError
from onefold.target import Memory, Target

INCLUDE = Path(__file__).parent.parent / "target" / "bare"
"""Folder of `onefold_semihost.h`, for the sources of an image."""

_MAIN = """\
  .text : {{ KEEP(*(.vectors)) *(.text .text.*) *(.rodata .rodata.*) . = ALIGN(8); }} > {flash}
  .ARM.exidx : {{ *(.ARM.exidx*) }} > {flash}
  .data : {{ _sd = .; *(.data .data.*) . = ALIGN(8); _ed = .; }} > {ram} AT> {flash}
  _ld = LOADADDR(.data);
  .bss (NOLOAD) : {{ . = ALIGN(8); _sb = .; *(.bss .bss.*) *(COMMON) . = ALIGN(8); _eb = .;
  }} > {ram}
  _stack = ORIGIN({ram}) + LENGTH({ram});
  _stack_lo = _stack - {stack};
  ASSERT(_eb <= _stack_lo, "memory '{ram}' overflows: buffers and stack do not fit")
  /DISCARD/ : {{ *(.comment) *(.ARM.attributes) *(.note*) }}
"""


def start_sources(target: Target) -> list[Path | tuple[str, str]]:
    """Start-up sources of the target's architecture.

    Raises `TargetError` for an architecture without any.
    """
    if target.arch != "thumb":
        raise TargetError(f"there is no start-up code for '{target.name}'",
                          why=f"bare-metal images exist for Cortex-M, not for {target.arch}",
                          kind=TargetError.CANNOT)
    return [("onefold_startup.c", (INCLUDE / "startup.c").read_text("utf-8"))]


def linker_script(target: Target, stack_bytes: int) -> str:
    """The linker script for the target's memories.

    Code and constants go to the first flash memory, variables and the stack (`stack_bytes`, at
    the top) to the first RAM.  Every other memory NAME takes the sections `.NAME` and `.NAME.*`,
    which are reserved but neither loaded nor cleared.
    """
    flash, ram = _first(target, "flash"), _first(target, "ram")
    regions = "\n".join(
        f"  {m.name} ({'rx' if m.kind == 'flash' else 'rwx'}) : "
        f"ORIGIN = {m.base:#x}, LENGTH = {m.size:#x}" for m in target.memories)
    others = "".join(
        f"  .{m.name} (NOLOAD) : {{ . = ALIGN(64); *(.{m.name} .{m.name}.*) }} > {m.name}\n"
        for m in target.memories if m not in (flash, ram))
    main = _MAIN.format(flash=flash.name, ram=ram.name, stack=(stack_bytes + 7) // 8 * 8)
    return f"MEMORY {{\n{regions}\n}}\nSECTIONS {{\n{main}{others}}}\n"


def _first(target: Target, kind: str) -> Memory:
    for memory in target.memories:
        if memory.kind == kind:
            return memory
    raise TargetError(f"'{target.name}' has no {kind} memory to place the program in",
                      kind=TargetError.DEVICE)
