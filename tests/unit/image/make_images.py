#!/usr/bin/env python3
"""Makes images.inc: small files of each format and what Pillow makes of them. Needs python3-pil.

usage: make_images.py > images.inc
"""
import io
import sys

from PIL import Image, ImageFilter


def bytes_of(name, data):
    rows = [", ".join(map(str, data[i:i + 24])) for i in range(0, len(data), 24)]
    print(f"static const uint8_t {name}[] = {{\n    " + ",\n    ".join(rows) + "};")


def source(w, h, alpha=False):
    pixels = [((x * 40) % 256, (y * 50) % 256, (x * y * 17) % 256) + ((x * 60 % 256,) if alpha else ())
              for y in range(h) for x in range(w)]
    image = Image.new("RGBA" if alpha else "RGB", (w, h))
    image.putdata(pixels)
    return image


def saved(image, **options):
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def both(name, data):
    bytes_of(name, data)
    image = Image.open(io.BytesIO(data))
    bytes_of(name + "_rgba", image.convert("RGBA").tobytes())


print("/* made by make_images.py */\n// clang-format off")
both("png_rgb", saved(source(7, 5), format="PNG"))
both("png_alpha", saved(source(4, 3, True), format="PNG"))
both("png_palette", saved(source(6, 4).quantize(8), format="PNG"))
both("png_gray", saved(source(5, 4).convert("L"), format="PNG"))
both("jpeg_rgb", saved(source(16, 8), format="JPEG", quality=90, subsampling=0))
both("jpeg_gray", saved(source(9, 8).convert("L"), format="JPEG", quality=90))
exif = Image.Exif()
exif[0x0112] = 6
bytes_of("jpeg_turned", saved(source(16, 8), format="JPEG", quality=90, subsampling=0, exif=exif))
both("webp_lossless", saved(source(6, 5, True), format="WEBP", lossless=True, exact=True))
big = source(24, 18)
bytes_of("resize_from", big.convert("RGBA").tobytes())
bytes_of("resize_smaller", big.resize((7, 5), Image.Resampling.LANCZOS).convert("RGBA").tobytes())
bytes_of("resize_larger", big.resize((40, 32), Image.Resampling.LANCZOS).convert("RGBA").tobytes())
bytes_of("resize_covered",
         big.resize((10, 10), Image.Resampling.LANCZOS, box=(3, 0, 21, 18)).convert("RGBA").tobytes())
sys.stdout.flush()
