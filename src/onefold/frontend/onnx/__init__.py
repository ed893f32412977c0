"""ONNX: `reader` turns a file into plain records, the importer those into a graph."""
