"""Weights of an ONNX file, read without an ONNX package: a few nested Protocol Buffers messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_WEIGHT = 7, 1, 5
_NODE_INPUT, _NODE_NAME = 1, 3
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 1, 2, 8, 9
_FLOAT32 = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_onnx(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights by name, and the operation that takes each as its last input.

    Matrices often lose their names when a network is written to ONNX; the name of the product they
    stand in tells which they are.

    Returns:
        float32 tensors by name; names of operations by the name of their last input.

    Raises:
        ValueError: the file is damaged, or no ONNX file.
    """
    weights, users = dict[str, Tensor](), dict[str, str]()
    for _, graph in _messages(memoryview(path.read_bytes()), _MODEL_GRAPH):
        for kind, message in _messages(graph, _GRAPH_NODE, _GRAPH_WEIGHT):
            if kind == _GRAPH_WEIGHT:
                name, values = _tensor(message)
                if values is not None:
                    weights[name] = values
                continue
            texts = {k: bytes(v).decode() for k, v in _messages(message, _NODE_INPUT, _NODE_NAME)}
            if _NODE_INPUT in texts:
                users[texts[_NODE_INPUT]] = texts.get(_NODE_NAME, "")
    return weights, users


def _tensor(message: memoryview) -> tuple[str, Tensor | None]:
    """Name and values of a tensor; None for other numbers than float32."""
    dims, kind, name, data = list[int](), 0, "", memoryview(b"")
    for number, value in _fields(message):
        if isinstance(value, int):
            dims += [value] if number == _TENSOR_DIMS else []
            kind = value if number == _TENSOR_TYPE else kind
        elif number == _TENSOR_NAME:
            name = bytes(value).decode()
        elif number == _TENSOR_DATA:
            data = value
    if kind != _FLOAT32 or not data:
        return name, None
    return name, torch.from_numpy(np.frombuffer(data, np.float32).reshape(dims).copy())


def _messages(data: memoryview, *numbers: int) -> Iterator[tuple[int, memoryview]]:
    """Fields with one of these numbers that hold bytes."""
    for number, value in _fields(data):
        if number in numbers and isinstance(value, memoryview):
            yield number, value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of the fields of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"a field of unknown kind {wire}")
        if at + length > len(data):
            raise ValueError("it ends within a field")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it ends within a number")
