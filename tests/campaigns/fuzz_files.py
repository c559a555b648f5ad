"""Exported generators and images with mutations."""

import io
import json
import struct

import numpy as np
from fuzz_mutations import changed_bytes, changed_data
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from gan_nst.inference.exported import KEY, Description, TrainingScale, to_json
from gan_nst.networks import build

_SPEC = {"name": "resnet", "width": 2, "blocks": 1, "downsamplings": 1}
_values = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            -1,
            0,
            1,
            8,
            10**9,
            10**30,
            2**63,
            1.5,
            1e308,
            float("nan"),
            float("inf"),
            "x",
            "",
            "ab",
        ),
        *(
            "a\nb\x1b[31m",
            "F32",
            "F16",
            "F64",
            "BF16",
            "I64",
            "BOOL",
            "F8_E4M3",
            "Q9",
            [],
            [0, 0],
            [0, 2**62],
            [2**62, 2**62],
        ),
        *({}, {"x": 1}, [[]], "resnet", "patchgan", "cartoon", 1024, 100, 5, "reflect", "é" * 5000),
        {"name": "resnet", "width": 1024, "blocks": 100, "downsamplings": 5},
        {"name": "patchgan", "width": 1024, "layers": 5},
    ]
)
_texts = st.one_of(
    st.sampled_from(
        ["", "{", "[]", "null", "1" * 5000, "NaN", '"x"', "[" * 20_000, '{"a":' * 20_000, "1e999"]
    ),
    st.integers(1, 20_000).map(lambda length: json.dumps("x\n" * length)),
    st.text(max_size=30),
)


def _generator_file() -> bytes:
    network = build(_SPEC)
    scale = TrainingScale(load_size=16, crop_size=16)
    description = Description(
        network=network.spec.model_dump(), translation="ab", training_scale=scale, method="cyclegan"
    )
    return save(network.state_dict(), {KEY: to_json(description)})


def _joined(header: object, data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@st.composite
def exported_files(draw: st.DrawFn) -> bytes:
    """Mutations of an exported generator: of its header, its description or its bytes."""
    original = _GENERATOR
    length = struct.unpack("<Q", original[:8])[0]
    header, data = json.loads(original[8 : 8 + length]), original[8 + length :]
    how = draw(st.integers(0, 6))
    if how <= 1:
        description = json.loads(header["__metadata__"][KEY])
        header["__metadata__"][KEY] = json.dumps(draw(changed_data(description, _values)))
    elif how == 2:
        header["__metadata__"][KEY] = draw(_texts)
    elif how <= 4:
        header = draw(changed_data(header, _values))
    elif how == 5:
        return _joined(header, data, draw(st.integers(0, 2**64 - 1) | st.integers(length - 9, length + 9)))
    else:
        return draw(changed_bytes(original)) if draw(st.integers(0, 3)) else draw(st.binary(max_size=200))
    return _joined(header, data)


def _images() -> list[bytes]:
    """A small image in every format in `_FORMATS`, in several modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "an image"
    found = []
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F", "YCbCr"):
        image = Image.fromarray(pixels) if mode in ("RGB", "RGBA") else Image.fromarray(pixels[..., 0])
        image = image.convert(mode)
        for name, options in _FORMATS:
            if options and mode != "RGB":
                continue  # Pillow's writers crash on some
            file = io.BytesIO()
            try:
                image.save(file, name, **options, **({"exif": exif} if name in _WITH_EXIF else {}))
            except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError):
                continue  # the format does not support this mode
            found.append(file.getvalue())
    bilevel = io.BytesIO()
    Image.fromarray(pixels[..., 0] > 99).save(bilevel, "TIFF", compression="group4")
    found.append(bilevel.getvalue())
    frames = [Image.fromarray(np.roll(pixels[..., :3], n, 0)) for n in range(3)]
    for name in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
        file = io.BytesIO()
        frames[0].save(file, name, save_all=True, append_images=frames[1:])
        found.append(file.getvalue())
    return found


_WITH_EXIF = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
_FORMATS = [
    *(
        ("PNG", {}),
        ("PNG", {"optimize": True}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("GIF", {}),
    ),
    *(
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    ),
    *(("TIFF", {"compression": "tiff_adobe_deflate"}), ("AVIF", {}), ("BMP", {})),
    *(
        ("PPM", {}),
        ("TGA", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("ICO", {}),
        ("ICNS", {}),
        ("JPEG2000", {}),
        ("PCX", {}),
    ),
    *(
        ("SGI", {}),
        ("DDS", {}),
        ("DIB", {}),
        ("IM", {}),
        ("MSP", {}),
        ("XBM", {}),
        ("SPIDER", {}),
        ("QOI", {}),
        ("BLP", {}),
    ),
]


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """Mutations of small images."""
    original = draw(st.sampled_from(_IMAGES))
    if draw(st.integers(0, 19)) == 19:  # 19 because 0 is drawn more often than other numbers
        return draw(st.binary(max_size=100))
    return draw(changed_bytes(original))


_GENERATOR, _IMAGES = _generator_file(), _images()
