"""Text of the files around the generated model: embedded weights and a program that runs it."""

from __future__ import annotations

from onefold.codegen.levels import VARIABLE
from onefold.codegen.text import c_comment
from onefold.plan.program import Program
from onefold.target import Target

BELOW_STATUS = 6  # of a runner whose CPU has no kernels


def weights_source(prefix: str, size: int) -> str:
    """The weights as an object: taken in as bytes by the assembler, never as text."""
    if not size:
        return f"const unsigned char {prefix}_weights[64] __attribute__((aligned(64))) = {{0}};\n"
    return (
        f"// The weights of {prefix}, {size} bytes.\n"
        f'__asm__(".section .rodata.{prefix}_weights,\\"a\\"\\n"\n'
        f'        ".balign 64\\n"\n'
        f'        ".globl {prefix}_weights\\n"\n'
        f'        "{prefix}_weights:\\n"\n'
        f'        ".incbin \\"{prefix}_weights.bin\\"\\n"\n'
        f'        ".balign 4\\n"\n'
        f'        ".previous\\n");\n'
    )


def main_source(program: Program, prefix: str, target: Target, lowest: str = "") -> str:
    """A program that reads input0.bin ... and, where the caller gives sizes, dims.bin, runs the
    model, and writes output0.bin ..., the sizes of the run and the bytes of stack that it took.

    lowest: the least CPU of a program that has kernels for several.
    """
    ins, outs = len(program.inputs), len(program.outputs)
    dims = len(program.dims) + len(program.found)
    up = prefix.upper()
    team = program.threads > 1
    ports = [f"// input{k}.bin: {c_comment(p.name)} {c_comment(repr(p.type))}"
             for k, p in enumerate(program.inputs)]  # fmt: skip
    ports += [f"// output{k}.bin: {c_comment(p.name)} {c_comment(repr(p.type))}"
              for k, p in enumerate(program.outputs)]  # fmt: skip
    head = [
        "// Runs the model on files. " + c_comment(program.name), *ports,
        f'#include "{prefix}.h"',
        '#include "onefold_semihost.h"' if target.os == "none"
        else "#include <stddef.h>\n#include <stdio.h>\n#include <stdlib.h>",
        "",
        *(["#include <pthread.h>", "#include <sched.h>"] if team else []),
        f"extern const unsigned char {prefix}_weights[];",
        *_arenas(program, up),
        f"static _Alignas(64) unsigned char state[{up}_STATE_BYTES + 1];",
    ]  # fmt: skip
    for what, n in (("input", ins), ("output", outs)):
        for k in range(n):
            head.append(
                f"static _Alignas(64) unsigned char {what}{k}[{up}_{what.upper()}{k}_BYTES + 1];"
            )
    if team:
        head.append(_TEAM.replace("@PREFIX@", prefix).replace("@UP@", up))
    body = _BARE if target.os == "none" else _LINUX
    given = len(program.dims)
    reads = "".join(f'  get("input{k}.bin", input{k}, {up}_INPUT{k}_BYTES);\n' for k in range(ins))
    writes = "".join(
        f'  put("output{k}.bin", output{k}, {up}_OUTPUT{k}_BYTES);\n' for k in range(outs)
    )
    writes += f'  put("sizes.bin", dims, {8 * dims});\n' if dims else ""
    refuse = (
        f'  if ({prefix}_level() < 0) {{\n'
        f'    fprintf(stderr, "this CPU is not as good as {lowest}, the least that there are "\n'
        f'            "kernels for, or as what {VARIABLE} asks for\\n");\n'
        f"    return {BELOW_STATUS};\n  }}\n"
    )  # fmt: skip
    call = (
        (refuse if lowest else "")
        + f"  {prefix}_state_init(state);\n"
        f"  const void *const ins[] = {{{', '.join(f'input{k}' for k in range(ins)) or '0'}}};\n"
        f"  void *const results[] = {{{', '.join(f'output{k}' for k in range(outs)) or '0'}}};\n"
        f"  static int64_t dims[{max(dims, 1)}];\n"
        + (f'  get("dims.bin", dims, {8 * given});\n' if given else "")
        + ("  help();\n" if team else "")
        + "  paint();\n"
        f"  const int error = {prefix}_run{'_team(team, ' if team else '('}"
        f"{_arena_argument(program)}, {prefix}_weights, state, ins, results, dims);\n"
        "  const unsigned used = stack_used();\n"
        + ("  leave();\n" if team else "")
    )
    return "\n".join(head) + body.replace("@READS@", reads).replace("@WRITES@", writes).replace(
        "@CALL@", call
    )


def _arenas(program: Program, up: str) -> list[str]:
    """The arena as a static array, one in the section of each memory that it is spread over."""
    if len(program.arenas) <= 1:
        return [f"static _Alignas(64) unsigned char arena[{up}_ARENA_BYTES + 1];"]
    out = []
    for k, a in enumerate(program.arenas):
        where = f' __attribute__((section(".{a.space}")))' if k else ""
        out.append(f"static _Alignas(64) unsigned char arena{k}[{up}_ARENA{k}_BYTES + 1]{where};")
    names = ", ".join(f"arena{k}" for k in range(len(program.arenas)))
    return [*out, f"static void *const arenas[] = {{{names}}};"]


def _arena_argument(program: Program) -> str:
    return "arena" if len(program.arenas) <= 1 else "arenas"


_TEAM = """
static _Alignas(64) unsigned char team[@UP@_TEAM_BYTES];
static pthread_t helpers[@UP@_THREADS];

static void *helper(void *part) {
  @PREFIX@_work(team, (int32_t)(size_t)part);
  return 0;
}

// Begins the other threads, and waits until they are there.
static void help(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 1 << 20);
  for (size_t k = 1; k < @UP@_THREADS; k++)
    if (pthread_create(&helpers[k], &attributes, helper, (void *)k)) __builtin_trap();
  while (@PREFIX@_helpers(team) < @UP@_THREADS - 1) sched_yield();
}

static void leave(void) {
  @PREFIX@_end(team);
  for (size_t k = 1; k < @UP@_THREADS; k++) pthread_join(helpers[k], 0);
}"""

_BARE = """

static void get(const char *name, void *to, size_t bytes) {
  const int f = onefold_open(name, 0);
  if (f < 0 || onefold_read(f, to, bytes) != bytes)
    onefold_print("cannot read "), onefold_print(name), onefold_exit(3);
  onefold_close(f);
}

static void put(const char *name, const void *from, size_t bytes) {
  const int f = onefold_open(name, 1);
  if (f < 0 || onefold_write(f, from, bytes) != bytes)
    onefold_print("cannot write "), onefold_exit(4);
  onefold_close(f);
}

static void paint(void) {}  // the start-up code has done it
static unsigned stack_used(void) { return onefold_stack_used(); }

int main(void) {
@READS@@CALL@  if (error) onefold_exit(5);
@WRITES@  put("stack.bin", &used, sizeof used);
  return 0;
}
"""

_LINUX = """

static void get(const char *name, void *to, size_t bytes) {
  FILE *f = fopen(name, "rb");
  if (!f || fread(to, 1, bytes, f) != bytes)
    fprintf(stderr, "cannot read %s\\n", name), exit(1);
  fclose(f);
}

static void put(const char *name, const void *from, size_t bytes) {
  FILE *f = fopen(name, "wb");
  if (!f || fwrite(from, 1, bytes, f) != bytes)
    fprintf(stderr, "cannot write %s\\n", name), exit(1);
  fclose(f);
}

// The stack below this function is painted, and later searched for the deepest byte that changed.
enum { DEPTH = 1 << 20, RED_ZONE = 256 };
static volatile unsigned char *deepest;

__attribute__((noinline)) static void paint(void) {
  volatile unsigned char *here = (volatile unsigned char *)__builtin_frame_address(0) - RED_ZONE;
  deepest = here;
  for (size_t i = 0; i < DEPTH; i++) here[-(ptrdiff_t)i] = 0xC5;
}

__attribute__((noinline)) static unsigned stack_used(void) {
  size_t i = DEPTH;
  while (i > 0 && deepest[-(ptrdiff_t)(i - 1)] == 0xC5) i--;
  return (unsigned)i + RED_ZONE;
}

int main(void) {
@READS@@CALL@  if (error) return 5;
@WRITES@  put("stack.bin", &used, sizeof used);
  return 0;
}
"""
