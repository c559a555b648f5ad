"""Generators in files that other programs run.

`onnx` writes and runs ONNX files (`write_onnx`, `OnnxGenerator`); `program` writes and reads torch.export
programs (`write_program`, `read_program`); `check` compares a file with the translator (`compare`).
"""
