"""ONNX files: operator table, writer, reader, ONNX Runtime."""
