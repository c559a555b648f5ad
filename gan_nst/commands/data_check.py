"""`gan-nst data check`: finds what would go wrong in a training, before it starts."""

import json as json_text
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gan_nst.core.errors import SettingsError, one_line
from gan_nst.core.files import check_writable, write_file
from gan_nst.core.options import CheckOptions
from gan_nst.data.check import (
    SPLITS,
    Checked,
    ImageFacts,
    Key,
    check_images,
    count_skipped,
    find_problems,
    gray_share,
    part_name,
    readable,
)
from gan_nst.data.domains import DOMAINS, DataSettings, all_images, has_training, locate
from gan_nst.runs.settings import find_config, load_settings

log = logging.getLogger(__name__)


def data_check(folder: Path | str | None = None, options: CheckOptions = CheckOptions()) -> dict[str, Any]:
    """Opens every image of a data set, logs the findings, and returns them; "ok" is true if nothing is wrong.

    folder: a data set in any layout that training reads, or a plain folder of images; without one, the data set of
    `options.domain`. The crop size defaults to that of the settings, or of the full recipe. Raises GanNstError when
    there is no data set.
    """
    if (folder is None) == (options.domain is None):
        raise SettingsError("nothing to check: give either a folder or --domain NAME, not both")
    check_writable(options.json)
    if folder is None:
        config = find_config(str(options.domain), options.method)
        data = load_settings(config, [f"data.domain={options.domain}"])[0].data
        where = data.root / data.domain
    else:
        data, where = DataSettings(), Path(folder)
    crop_size = options.crop_size or data.crop_size
    smallest = 0 if data.upscale and data.resize != "none" else crop_size
    if folder is None or has_training(where):
        data_set = locate(data, where, complete=False)
        folders = {(split, d): getattr(data_set, split)[d] for split in SPLITS for d in DOMAINS}
        given = [split for split in SPLITS[1:] if split not in data_set.held_out]
        checked = check_images(folders, smallest, given)
    else:
        checked = check_images({("images", ""): all_images(where)}, smallest)
    wrong, advice = find_problems(checked, crop_size)
    result: dict[str, Any] = {
        "folder": str(where),
        "ok": not wrong,
        "crop_size": crop_size,
        "wrong": wrong,
        "advice": advice,
        "paired": [split for split, (a, b) in checked.names.items() if a and a == b],
        "skipped": {str(f.root): counts for f in checked.folders.values() if (counts := count_skipped(f))},
        "parts": [_part(key, checked) for key in checked.images],
        "duplicates": [_group(group) for group in checked.duplicates],
    }
    log.info("\n".join([*_table(result["parts"]), *_conclusions(result)]))
    if options.json is not None:
        write_file(options.json, json_text.dumps(result, indent=2) + "\n")
    return result


def _group(images: list[ImageFacts]) -> list[dict[str, Any]]:
    copies = Counter(image.digest for image in images)
    return [
        {"file": str(image.path), "part": part_name(image.key), "same_pixels": copies[image.digest] > 1}
        for image in images
    ]


def _part(key: Key, checked: Checked) -> dict[str, Any]:
    """The facts of one domain's images of one split; sizes are width and height in pixels."""
    images = checked.images[key]
    by_size = sorted(readable(images), key=lambda i: (min(i.width, i.height), i.width * i.height))
    sizes = colour = None
    if by_size:
        examples = {"smallest": by_size[0], "median": by_size[len(by_size) // 2], "largest": by_size[-1]}
        sizes = {which: [image.width, image.height] for which, image in examples.items()}
        colour = _colour(by_size)
    flags = ("too_small", "flat", "elongated", "outside")
    return {
        "split": key[0],
        "domain": key[1],
        "folder": str(checked.folders[key].root),
        "images": len(images),
        "broken": [{"file": str(image.path), "problem": image.problem} for image in images if image.problem],
        **{flag: [str(image.path) for image in images if getattr(image, flag)] for flag in flags},
        "sizes": sizes,
        "formats": dict(Counter(image.format for image in by_size).most_common()),
        "colour": colour,
    }


def _colour(images: list[ImageFacts]) -> dict[str, Any]:
    """Means over the images, of levels from 0 to 255. brightness: of the gray values. varies: its standard deviation
    between images. spread: the gray values' standard deviation within an image.
    """
    means = np.array([image.mean for image in images])
    brightness = means @ [0.299, 0.587, 0.114]
    return {
        "mean": [round(value, 1) for value in means.mean(0).tolist()],
        "brightness": round(float(brightness.mean()), 1),
        "varies": round(float(brightness.std()), 1),
        "spread": round(float(np.mean([image.spread for image in images])), 1),
        "gray_share": round(gray_share(images), 3),
    }


def _table(parts: list[dict[str, Any]]) -> list[str]:
    head = ["", "images", "broken", "smallest", "median", "largest", "formats"]
    head += ["mean RGB", "brightness", "spread", "gray"]
    rows = [head, *map(_row, parts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(part: dict[str, Any]) -> list[str]:
    row = [f"{part['split']} {part['domain']}".strip(), str(part["images"]), str(len(part["broken"]))]
    if part["sizes"] is None:
        return [*row, *["-"] * 8]
    colour = part["colour"]
    return [
        *row,
        *(f"{width} x {height}" for width, height in part["sizes"].values()),
        ", ".join(f"{number} {name}" for name, number in part["formats"].items()),
        " ".join(f"{value:.0f}" for value in colour["mean"]),
        f"{colour['brightness']:.0f} +- {colour['varies']:.0f}",
        f"{colour['spread']:.0f}",
        f"{colour['gray_share']:.0%}",
    ]


def _conclusions(result: dict[str, Any]) -> list[str]:
    lines = [f"{split}: paired, each image has a counterpart of the same name" for split in result["paired"]]
    lines += [f"wrong: {line}" for line in result["wrong"]]
    lines += [f"advice: {line}" for line in result["advice"]]
    lines.append(f"{result['folder']}: {'nothing' if result['ok'] else 'something'} is wrong")
    return list(map(one_line, lines))
