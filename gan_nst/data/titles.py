"""Titles and credits: pictures that show text and little else."""

import cv2
import numpy as np

from gan_nst.images.files import Picture, shrink_picture


def shows_text(picture: Picture) -> bool:
    """Whether a picture is a title or credits: letters in lines on a flat ground, and little else.

    Letters over a painted ground are not seen, nor are fewer than five.
    """
    picture = shrink_picture(picture, 288)
    colours = (picture // 16).astype(np.int32) @ [256, 16, 1]
    ground = np.median(picture[colours == np.bincount(colours.ravel()).argmax()], axis=0)
    away = np.abs(picture - ground).max(2)
    ink = (away > max(40.0, 0.5 * np.percentile(away, 99.5))).astype(np.uint8)  # not the blur around letters
    if not 0 < ink.mean() < 0.4 or np.mean(away <= 16) < 0.85 * (1 - ink.mean()):
        return False
    boxes = cv2.connectedComponentsWithStats(ink, connectivity=8)[2][1:]
    boxes = boxes[np.argsort(-boxes[:, cv2.CC_STAT_AREA])[:600]]  # snow has thousands
    x, y, width, height, area = boxes.T
    # Letters of a line overlap in height, are of a kind and stand close; stars and leaves do not.
    overlap = np.minimum.outer(y + height, y + height) - np.maximum.outer(y, y)
    gap = np.maximum.outer(x, x) - np.minimum.outer(x + width, x + width)
    low, high = np.minimum.outer(height, height), np.maximum.outer(height, height)
    letter = (height < 0.25 * picture.shape[0]) & (width < 0.9 * picture.shape[1])
    beside = (overlap > 0.5 * low) & (high < 2.5 * low) & (gap < high) & np.outer(letter, letter)
    np.fill_diagonal(beside, False)
    in_line = beside.any(1)
    letters = np.maximum(1, width / height)[in_line].sum()  # where letters touch, a word is one box
    return bool(letters >= 5 and area[in_line].sum() > 0.7 * area.sum())
