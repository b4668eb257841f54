"""Seeded damage to files: bits flipped, ranges cut, moved and nested, lengths and offsets replaced by huge ones."""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

_HUGE = (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1)
_WORDS = (b"null", b"true", b'""', b'"x"', b"[]", b"{}", b"-1", b"1e999", b"0.5", b"9" * 30, b"nan", b'"\\ud800"')
_HEAD = 2048  # bytes in which most lengths and offsets are

Mutation = Callable[[random.Random, bytes], bytes]


def mutated(kind: str, seed: int, content: bytes) -> bytes:
    """Return a mutation of a file's content; the same for the same seed. `kind`: the format, as in `doors.DOORS`."""
    rng = random.Random(f"{kind} {seed}")
    mutations: list[Mutation] = [flip, cut, overwrite, resize, move, remove, insert]
    own: dict[str, list[Mutation]] = {
        "profile": [word, word, nest, text],
        "sidecar": [word, word, nest, text],
        "safetensors": [_in_header(word), _in_header(nest), _in_header(text), _in_header(flip)],
        "pytorch": [_in_archive, _in_archive, _in_archive, rename_global],
        "onnx": [message, message, nest_message],
        "image": [png_chunk],
        "hdf5": [],
        "idx": [gzip_bomb],
    }
    mutations += own[kind]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(mutations)(rng, content)
    return content


def _position(rng: random.Random, content: bytes | bytearray) -> int:
    """Return a position, half of the time in the head."""
    limit = min(len(content), _HEAD) if rng.random() < 0.5 else len(content)
    return rng.randrange(max(limit, 1))


def flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 2, 8))):
        changed[_position(rng, changed)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: _position(rng, content)]


def overwrite(rng: random.Random, content: bytes) -> bytes:
    start, length = _position(rng, content), rng.choice((1, 4, 64))
    return content[:start] + rng.choice((b"\0", b"\xff", rng.randbytes(1))) * length + content[start + length :]


def resize(rng: random.Random, content: bytes) -> bytes:
    """Replace an integer of four or eight bytes by another, such as a length by a huge one."""
    start, width = _position(rng, content), rng.choice((2, 4, 8))
    value = rng.choice(_HUGE) % (1 << 8 * width)
    little = value.to_bytes(width, "little")
    return content[:start] + rng.choice((little, little[::-1])) + content[start + width :]


def move(rng: random.Random, content: bytes) -> bytes:
    start, target, length = _position(rng, content), _position(rng, content), rng.choice((4, 32, 256))
    return content[:target] + content[start : start + length] + content[target + length :]


def remove(rng: random.Random, content: bytes) -> bytes:
    start = _position(rng, content)
    return content[:start] + content[start + rng.choice((1, 8, 100)) :]


def insert(rng: random.Random, content: bytes) -> bytes:
    start = _position(rng, content)
    return content[:start] + rng.randbytes(rng.choice((1, 8, 100, 100_000))) + content[start:]


def word(rng: random.Random, content: bytes) -> bytes:
    """Replace a number, a name or a text of JSON or TOML by another value."""
    matches = list(re.finditer(rb'-?\d+\.?\d*|"[^"]*"|\w+', content))
    if not matches:
        return content
    match = rng.choice(matches)
    values = (*_WORDS, str(rng.choice(_HUGE)).encode())
    return content[: match.start()] + rng.choice(values) + content[match.end() :]


def nest(rng: random.Random, content: bytes) -> bytes:
    """Replace a value of JSON or TOML by deeply nested ones."""
    depth, values = rng.choice((50, 2000, 200_000)), list(re.finditer(rb"[:=] ?([^,\n}]+)", content))
    if not values:
        return content
    match, (opening, closing) = rng.choice(values), rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}")))
    return content[: match.start(1)] + opening * depth + b"1" + closing * depth + content[match.end(1) :]


def text(rng: random.Random, content: bytes) -> bytes:
    """Insert control characters, invalid UTF-8 or an escape for a terminal."""
    start = _position(rng, content)
    return content[:start] + rng.choice((b"\0", b"\xff\xfe", b"\x1b[2J", b"\r\n", b"\xe2\x80\xae")) + content[start:]


def _in_header(mutation: Mutation) -> Mutation:
    """Return the mutation of a safetensors header, whose length is corrected."""

    def apply(rng: random.Random, content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = mutation(rng, content[8 : 8 + length])
        return len(header).to_bytes(8, "little") + header + content[8 + length :]

    return apply


def _in_archive(rng: random.Random, content: bytes) -> bytes:
    """Mutate a file in a zip archive, whose checksums are corrected."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, zlib.error, OSError, EOFError):
        return flip(rng, content)
    pickled = [name for name in members if name.endswith("data.pkl")]
    name = rng.choice([*members, *pickled * 5])
    mutation = rng.choice((flip, overwrite, resize, move, remove, insert, rename_global))
    members[name] = mutation(rng, members[name])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rename_global(rng: random.Random, content: bytes) -> bytes:
    """Replace the functions that a pickle names by ones that run code, or build other tensors."""
    names = (b"os\nsystem\n", b"builtins\neval\n", b"builtins\nexec\n", b"torch._utils\n_rebuild_sparse_tensor\n",
             b"torch\nSize\n", b"torch._utils\n_rebuild_meta_tensor_no_storage\n", b"torch\nempty\n")  # fmt: skip
    matches = list(re.finditer(rb"(?<=c)[a-z_.]+\n\w+\n", content))
    if not matches:
        return content
    match = rng.choice(matches)
    return content[: match.start()] + rng.choice(names) + content[match.end() :]


def message(rng: random.Random, content: bytes) -> bytes:
    """Change a field of an ONNX file: shapes, types, attributes, names, and where data lies."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError):
        return flip(rng, content)
    graph = model.graph
    what = rng.randrange(9)
    if what == 0 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.dims[:] = [rng.choice(_HUGE) for _ in range(rng.randrange(1, 5))]
    elif what == 1 and graph.initializer:
        rng.choice(graph.initializer).data_type = rng.randrange(25)
    elif what == 2 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = rng.choice(("../secret", "/etc/passwd", "/dev/zero", "link", "net.onnx", "", ".", "a/../../secret"))
        values = {"location": place, "offset": str(rng.choice(_HUGE)), "length": str(rng.choice(_HUGE))}
        for key, value in values.items():
            tensor.external_data.add(key=key, value=value)
        tensor.ClearField("raw_data")
    elif what == 3 and graph.node:
        node = rng.choice(graph.node)
        if node.attribute:
            attribute = rng.choice(node.attribute)
            attribute.i = rng.choice(_HUGE)
            attribute.ints[:] = [rng.choice(_HUGE) for _ in attribute.ints]
    elif what == 4 and graph.node:
        node = rng.choice(graph.node)
        node.op_type = rng.choice(("ConstantOfShape", "Range", "Expand", "Tile", "Pad", "If", "Loop", "Nonsense"))
    elif what == 5 and graph.node:
        node = rng.choice(graph.node)
        if node.input:
            names = [name for other in graph.node for name in (*other.input, *other.output)]
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif what == 6:
        value = rng.choice([*graph.input, *graph.output])
        for dimension in value.type.tensor_type.shape.dim:
            if rng.random() < 0.5:
                dimension.dim_value = rng.choice(_HUGE)
    elif what == 7 and model.opset_import:
        model.opset_import[0].version = rng.choice(_HUGE)
    elif graph.node:
        nodes = list(graph.node)
        rng.shuffle(nodes)
        del graph.node[:]
        graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def nest_message(rng: random.Random, content: bytes) -> bytes:
    """Nest a graph in an attribute of a node of a graph, as often as chosen."""
    body = b""
    for _ in range(rng.choice((20, 90, 5000))):  # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6
        for field in (6, 5, 1):
            body = bytes([field << 3 | 2]) + _varint(len(body)) + body
    return content + bytes([7 << 3 | 2]) + _varint(len(body)) + body  # ModelProto.graph, which is merged


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def png_chunk(rng: random.Random, content: bytes) -> bytes:
    """Change a chunk of a PNG file, whose checksum is corrected; another image is returned as it is."""
    if not content.startswith(b"\x89PNG"):
        return flip(rng, content)
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return content
    index = rng.randrange(len(chunks))
    name, data = chunks[index]
    chunks[index] = (name, rng.choice((flip, resize, remove))(rng, data) if data else rng.randbytes(4))
    if rng.random() < 0.3:
        chunks.insert(1, (rng.choice((b"zTXt", b"iCCP")), b"x\0\0" + zlib.compress(bytes(50_000_000))))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def gzip_bomb(rng: random.Random, content: bytes) -> bytes:
    """Return a gzip stream that holds the content and many zeros, perhaps under the name of a plain file."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    start = packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + zeros * rng.choice((1, 400))  # 4 GB
