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
    Checked,
    Findings,
    Part,
    check_data_set,
    check_folder,
    count_skipped,
    find_problems,
)
from gan_nst.data.domains import DataSettings, all_images, has_training, locate
from gan_nst.runs.settings import find_config, load_settings

log = logging.getLogger(__name__)


def data_check(folder: Path | str | None = None, options: CheckOptions = CheckOptions()) -> dict[str, Any]:
    """Opens every image of a data set, logs the findings, and returns them; "ok" says whether nothing is wrong.

    folder: a data set in any layout that training reads, or a plain folder of images; without one, the data set of
    `options.domain`. The crop size defaults to that of the settings, or of the full recipe. Raises GanNstError when
    there is no data set.
    """
    if (folder is None) == (options.domain is None):
        raise SettingsError("nothing to check: give either a folder or --domain NAME, not both")
    check_writable(options.json)
    if folder is None:
        settings, _, _ = load_settings(
            find_config(str(options.domain), options.method), [f"data.domain={options.domain}"]
        )
        data, where = settings.data, settings.data.root / settings.data.domain
        checked = check_data_set(locate(data, complete=False))
    else:
        data, where = DataSettings(), Path(folder)
        if has_training(where):
            checked = check_data_set(locate(data, where, complete=False))
        else:
            checked = check_folder(all_images(where))
    crop_size = options.crop_size or data.crop_size
    upscale = data.upscale and data.resize != "none"
    findings = find_problems(checked, crop_size, upscale)
    result = _result(where, checked, findings, crop_size, upscale)
    log.info("\n".join([*_table(result["parts"]), *_conclusions(result)]))
    if options.json is not None:
        write_file(options.json, json_text.dumps(result, indent=2) + "\n")
    return result


def _result(where: Path, checked: Checked, found: Findings, crop_size: int, upscale: bool) -> dict[str, Any]:
    return {
        "folder": str(where),
        "ok": not found.wrong,
        "crop_size": crop_size,
        "wrong": list(found.wrong),
        "advice": list(found.advice),
        "paired": checked.paired,
        "skipped": {
            str(folder.root): counts for folder in checked.folders if (counts := count_skipped(folder))
        },
        "parts": [_part(part, crop_size, upscale) for part in checked.parts],
        "duplicates": [
            [
                {"file": str(one.image.path), "part": one.part.name, "same_pixels": one.same_pixels}
                for one in group
            ]
            for group in checked.duplicates
        ],
    }


def _part(part: Part, crop_size: int, upscale: bool) -> dict[str, Any]:
    """The facts of one domain's images of one split; sizes are width and height in pixels."""
    by_size = sorted(part.readable, key=lambda image: (image.side, image.width * image.height))
    sizes = colour = None
    if by_size:
        examples = {"smallest": by_size[0], "median": by_size[len(by_size) // 2], "largest": by_size[-1]}
        sizes = {which: [image.width, image.height] for which, image in examples.items()}
        colour = _colour(part)
    return {
        "split": part.split,
        "domain": part.domain,
        "folder": str(part.folder.root),
        "images": len(part.images),
        "broken": [{"file": str(i.path), "problem": i.problem} for i in part.images if i.problem is not None],
        "too_small": [str(image.path) for image in part.too_small(crop_size, upscale)],
        "flat": [str(image.path) for image in by_size if image.flat],
        "elongated": [str(image.path) for image in part.elongated],
        "outside": [str(image.path) for image in part.outside],
        "sizes": sizes,
        "formats": dict(Counter(image.format for image in by_size).most_common()),
        "colour": colour,
    }


def _colour(part: Part) -> dict[str, Any]:
    """Means over the images, of levels from 0 to 255. brightness: of the gray values. varies: its standard deviation
    between images. spread: the gray values' standard deviation within an image.
    """
    means = np.array([image.mean for image in part.readable])
    brightness = means @ [0.299, 0.587, 0.114]
    return {
        "mean": [round(value, 1) for value in means.mean(0).tolist()],
        "brightness": round(float(brightness.mean()), 1),
        "varies": round(float(brightness.std()), 1),
        "spread": round(float(np.mean([image.spread for image in part.readable])), 1),
        "gray_share": round(part.gray_share, 3),
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
