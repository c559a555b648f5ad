"""`gan-nst data check`: what a training would stumble over, before it does."""

import json as json_text
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gan_nst.core.errors import SettingsError, one_line
from gan_nst.core.files import check_writable, write_file
from gan_nst.data.check import (
    Checked,
    Findings,
    Part,
    check_data_set,
    check_folder,
    find,
    gray_share,
    left_out,
    odd,
    paired,
    too_small,
)
from gan_nst.data.domains import DataSettings, all_images, has_training, locate
from gan_nst.runs.settings import find_config, load_settings

log = logging.getLogger(__name__)


def data_check(
    folder: Path | str | None = None,
    *,
    domain: str | None = None,
    method: str = "cyclegan",
    crop_size: int | None = None,
    json: Path | str | None = None,
) -> dict[str, Any]:
    """Looks at every image of a data set, logs what it found, and returns what it writes to `json`; its "ok" is
    whether nothing is wrong.

    folder: a data set in any layout that training reads, or a plain folder of images. domain: instead, the data set
    that `train --domain` takes, with the settings of its method. crop_size: in pixels; by default what the settings
    say, or the full recipe's. Raises GanNstError, one line, for what is no data set.
    """
    if (folder is None) == (domain is None):
        raise SettingsError("nothing to check: give a folder, or --domain NAME, and not both")
    check_writable(json)
    if domain is not None:
        settings, _, _ = load_settings(find_config(domain, method), [f"data.domain={domain}"])
        data, where = settings.data, settings.data.root / settings.data.domain
    else:
        assert folder is not None
        data, where = DataSettings(), Path(folder)
    if domain is not None:
        checked = check_data_set(locate(data, all_of_it=False))
    elif has_training(where):
        checked = check_data_set(locate(data, where, all_of_it=False))
    else:
        checked = check_folder(all_images(where))
    crop_size = data.crop_size if crop_size is None else crop_size
    upscale = data.upscale and data.resize != "none"
    findings = find(checked, crop_size, upscale)
    result = _result(where, checked, findings, crop_size, upscale)
    log.info(_as_text(result))
    if json is not None:  # names that are no text, too: escaped
        write_file(Path(json), json_text.dumps(result, indent=2) + "\n")
    return result


def _result(where: Path, checked: Checked, found: Findings, crop_size: int, upscale: bool) -> dict[str, Any]:
    return {
        "folder": str(where),
        "ok": not found.wrong,
        "crop_size": crop_size,
        "wrong": list(found.wrong),
        "advice": list(found.advice),
        "paired": paired(checked),
        "left_out": {
            str(folder.root): left_out(folder) for folder in checked.folders if folder.missed.others
        },
        "parts": [_part(part, crop_size, upscale) for part in checked.parts],
        "alike": [
            [
                {"file": str(twin.look.path), "part": twin.part.name, "same_pixels": twin.same}
                for twin in twins
            ]
            for twins in checked.twins
        ],
    }


def _part(part: Part, crop_size: int, upscale: bool) -> dict[str, Any]:
    """What is known of one domain's images of one split; sizes are width and height in pixels."""
    good = sorted(part.readable, key=lambda look: (look.side, look.width * look.height))
    sizes = (
        [[look.width, look.height] for look in (good[0], good[len(good) // 2], good[-1])] if good else None
    )
    broken = [{"file": str(x.path), "problem": x.problem} for x in part.looks if x.problem is not None]
    return {
        "split": part.split,
        "domain": part.domain,
        "folder": str(part.folder.root),
        "images": len(part.looks),
        "broken": broken,
        "too_small": [str(look.path) for look in too_small(part, crop_size, upscale)],
        "flat": [str(look.path) for look in good if look.flat],
        "odd_aspect": [str(look.path) for look in odd(part)],
        "lying_elsewhere": [str(look.path) for look in part.looks if look.leads_out],
        "sizes": sizes and dict(zip(("smallest", "median", "largest"), sizes, strict=True)),
        "formats": dict(Counter(look.format for look in good).most_common()),
        "colour": _colour(part) if good else None,
    }


def _colour(part: Part) -> dict[str, Any]:
    """Means over the images, of levels from 0 to 255; brightness is of gray values, spread their deviation within an
    image, varies that of the brightness from image to image.
    """
    means = np.array([look.mean for look in part.readable])
    brightness = means @ [0.299, 0.587, 0.114]
    return {
        "mean": [round(value, 1) for value in means.mean(0).tolist()],
        "brightness": round(float(brightness.mean()), 1),
        "varies": round(float(brightness.std()), 1),
        "spread": round(float(np.mean([look.spread for look in part.readable])), 1),
        "gray_share": round(gray_share(part), 3),
    }


def _as_text(result: dict[str, Any]) -> str:
    head = ["", "images", "broken", "smallest", "median", "largest", "formats"]
    head += ["mean RGB", "brightness", "spread", "gray"]
    rows = [head, *(_row(part) for part in result["parts"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_said(result)])


def _row(part: dict[str, Any]) -> list[str]:
    name = f"{part['split']} {part['domain']}".strip()
    row = [name, str(part["images"]), str(len(part["broken"]))]
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


def _said(result: dict[str, Any]) -> Iterator[str]:
    for split in result["paired"]:
        yield f"{split}: paired, each image has a counterpart of the same name"
    for line in result["wrong"]:
        yield one_line(f"wrong: {line}")
    for line in result["advice"]:
        yield one_line(f"advice: {line}")
    yield one_line(f"{result['folder']}: {'nothing' if result['ok'] else 'something'} is wrong")
