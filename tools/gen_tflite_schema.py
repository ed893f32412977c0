"""Writes `onefold/frontend/_gen/tflite_schema.py`: the TFLite FlatBuffer schema as plain tables.

The source is the FlatBuffers-generated module that the `ai-edge-litert` wheel installs.  It is
parsed, never imported, so no FlatBuffers runtime is needed.  That module has forgotten two things
of the original schema, which are restored here: which integer fields are enums (`ENUM_FIELDS`,
checked against the field's width) and which option table belongs to which operator (derived from
the names, with `OPERATOR_OPTIONS` for the families that share a table).

    python tools/gen_tflite_schema.py [SCHEMA.py] [OUT.py]
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from typing import NamedTuple

OUT = Path(__file__).parent.parent / "src/onefold/frontend/_gen/tflite_schema.py"

WIDTH = {"Bool": 1, "Int8": 1, "Uint8": 1, "Int16": 2, "Uint16": 2, "Int32": 4, "Uint32": 4,
         "Int64": 8, "Uint64": 8, "Float32": 4, "Float64": 8}
CODE = {"Bool": "?", "Int8": "b", "Uint8": "B", "Int16": "h", "Uint16": "H", "Int32": "i",
        "Uint32": "I", "Int64": "q", "Uint64": "Q", "Float32": "f", "Float64": "d"}

ENUM_FIELDS = {
    "activation": "ActivationFunctionType",
    "fused_activation_function": "ActivationFunctionType",
    "padding": "Padding",
    "algorithm": "RngAlgorithm",
    "combiner": "CombinerType",
    "compare_type": "StablehloComparisonType",
    "comparison_direction": "StablehloComparisonDirection",
    "composite_attributes_format": "CustomOptionsFormat",
    "custom_options_format": "CustomOptionsFormat",
    "kernel_type": "LSTMKernelType",
    "precision_config": "StablehloPrecisionConfig",
    "reduce_function": "ReduceWindowFunction",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
    "DimensionMetadata.format": "DimensionType",
    "LSHProjectionOptions.type": "LSHProjectionType",
    "MirrorPadOptions.mode": "MirrorPadMode",
}
TENSOR_TYPES = {"Tensor.type", "VariantSubType.type", "idx_out_type", "in_data_type",
                "out_data_type", "out_type", "output_type", "key_dtype", "value_dtype",
                "quantized_bias_type"}
ENUM_WIDTH = {"b", "B", "i", "I"}

UNION_FIELDS = {"builtin_options": "BuiltinOptions", "builtin_options2": "BuiltinOptions2",
                "details": "QuantizationDetails", "array_segments": "SparseIndexVector",
                "array_indices": "SparseIndexVector"}

OPERATOR_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions", "L2_NORMALIZATION": "L2NormOptions",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions", "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions", "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "RANDOM_STANDARD_NORMAL": "RandomOptions", "RANDOM_UNIFORM": "RandomOptions",
    "MULTINOMIAL": "RandomOptions",
    **{f"REDUCE_{k}": "ReducerOptions" for k in ("PROD", "MAX", "MIN", "ANY", "ALL")},
    "MEAN": "ReducerOptions", "SUM": "ReducerOptions",
}


class Field(NamedTuple):
    slot: int
    name: str
    kind: str
    what: str
    default: object


def source_path() -> Path:
    spec = importlib.util.find_spec("ai_edge_litert")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("ai-edge-litert is not installed: pip install ai-edge-litert")
    return Path(spec.submodule_search_locations[0]) / "schema_py_generated.py"


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def enums(tree: ast.Module) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef) and all(isinstance(s, ast.Assign) for s in cls.body):
            found[cls.name] = {ast.literal_eval(s.value): ast.unparse(s.targets[0])
                               for s in cls.body if isinstance(s, ast.Assign)}
    return found


def field(table: str, method: ast.FunctionDef) -> Field | None:
    """The field behind one accessor method, or None for helpers such as `ShapeLength`."""
    text = ast.unparse(method)
    slot = re.search(r"_tab\.Offset\((\d+)\)", text)
    if slot is None or re.search(r"\w(AsNumpy|Length|IsNone)\(self", text):
        return None
    name = snake(method.name)
    number = (int(slot.group(1)) - 4) // 2
    vector = "_tab.Vector(o)" in text
    scalar = re.search(r"number_types\.(\w+)Flags, (?:a|o) \+", text)
    default = ast.literal_eval(re.findall(r"return (\S+)", text)[-1])
    if "_tab.Union(" in text:
        return Field(number, name, "union", UNION_FIELDS[name], None)
    if "_tab.String(" in text:
        return Field(number, name, "strings" if vector else "string", "", None)
    if "_tab.Indirect(" in text:
        made = re.search(r"obj = (\w+)\(\)", text)
        assert made, text
        return Field(number, name, "tables" if vector else "table", made.group(1), None)
    assert scalar, text
    code = CODE[scalar.group(1)]
    if vector:
        return Field(number, name, "numbers", code, None)
    return with_enum(table, Field(number, name, "number", code, default))


def with_enum(table: str, f: Field) -> Field:
    for key in (f"{table}.{f.name}", f.name):
        enum = "TensorType" if key in TENSOR_TYPES else ENUM_FIELDS.get(key)
        if enum and f.what in ENUM_WIDTH:
            return f._replace(kind="enum", what=f"{f.what}{enum}")
    return f


def tables(tree: ast.Module) -> dict[str, tuple[Field, ...]]:
    found: dict[str, tuple[Field, ...]] = {}
    for cls in tree.body:
        if isinstance(cls, ast.ClassDef) and any(
                isinstance(s, ast.FunctionDef) and s.name == "GetRootAs" for s in cls.body):
            fields = (field(cls.name, m) for m in cls.body if isinstance(m, ast.FunctionDef))
            found[cls.name] = tuple(sorted(f for f in fields if f))
    return found


def operator_options(operators: dict[int, str], known: list[str]) -> dict[str, str]:
    by_key = {t.removesuffix("Options").lower(): t for t in known}
    result = {}
    for name in operators.values():
        table = OPERATOR_OPTIONS.get(name) or by_key.get(name.replace("_", "").lower())
        if table:
            assert table in known, table
            result[name] = table
    return result


def render(tree: ast.Module, origin: str) -> str:
    all_enums = enums(tree)
    all_tables = tables(tree)
    options = [n for u in ("BuiltinOptions", "BuiltinOptions2")
               for n in all_enums[u].values() if n != "NONE"]
    rows = [f'"""TFLite schema as tables.  Generated by tools/gen_tflite_schema.py from {origin}; '
            'do not edit."""', "", "from __future__ import annotations", "",
            "# table -> ((slot, field, kind, type, default), ...);",
            "# the selector of a union is the slot before it",
            "TABLES: dict[str, tuple[tuple[int, str, str, str, object], ...]] = {"]
    for name, fields in all_tables.items():
        rows.append(f"    {name!r}: (")
        rows += [f"        {tuple(f)!r}," for f in fields]
        rows.append("    ),")
    rows += ["}", "", "ENUMS: dict[str, dict[int, str]] = {"]
    rows += [f"    {name!r}: {values!r}," for name, values in all_enums.items()]
    rows += ["}", "", "# operator -> the option table that belongs to it",
             "OPERATOR_OPTIONS: dict[str, str] = {"]
    chosen = operator_options(all_enums["BuiltinOperator"], options)
    rows += [f"    {op!r}: {table!r}," for op, table in chosen.items()]
    return "\n".join([*rows, "}", ""])


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else source_path()
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else OUT
    origin = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    out.write_text(render(ast.parse(source.read_text()), origin), encoding="utf-8")
    print(f"wrote {out.name}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
