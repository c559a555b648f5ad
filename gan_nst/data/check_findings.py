"""What is wrong with a data set that was looked at, and what could be better, in lines for the user.

Wrong is what a training refuses or what makes its scores untrue: folders and files that cannot be read, pictures
smaller than the crop, test or validation pictures that were trained on, the same picture in both domains. All else is
advice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gan_nst.core.errors import counted
from gan_nst.data.check import Checked, Look, Part, Twin
from gan_nst.data.domains import DOMAINS, Folder

FEW = 200  # pictures a side, under which discriminators learn them by heart
UNBALANCED = 3  # times as many on one side as on the other
ODD = 2.5  # times as long as high, or as high as long
_SHOWN = 10
_ENDINGS = 5


@dataclass(frozen=True)
class Findings:
    """wrong, advice: one line each, the most severe first."""

    wrong: tuple[str, ...]
    advice: tuple[str, ...]


def find(checked: Checked, crop_size: int, upscale: bool) -> Findings:
    """What is to be said of a data set whose training takes crops of so many pixels.

    upscale: smaller pictures are enlarged, as test pictures always are.
    """
    wrong = [
        *(line for folder in checked.folders for line in folder.missed.closed),
        *_broken(checked),
        *(line for part in checked.parts for line in _too_small(part, crop_size, upscale)),
        *_leaks(checked),
        *_in_both_domains(checked),
    ]
    advice = [*_numbers(checked), *_colours(checked), *_pairs(checked), *_alike(checked)]
    advice += [line for part in checked.parts for line in _odd(part)]
    advice += [line for folder in checked.folders for line in _left_out(folder)]
    return Findings(tuple(wrong), tuple(advice))


def too_small(part: Part, crop_size: int, upscale: bool) -> list[Look]:
    """The pictures that are refused for their size."""
    if upscale or part.split == "test":
        return []
    return [look for look in part.readable if look.side < crop_size]


def odd(part: Part) -> list[Look]:
    """The pictures of which a square crop shows a small part."""
    return [look for look in part.readable if max(look.width, look.height) > ODD * look.side]


def left_out(folder: Folder) -> dict[str, int]:
    """How many files are no pictures by their names, by the ending, the most frequent first."""
    others = folder.missed.others.items()
    return dict(sorted(others, key=lambda item: (-item[1], not item[0], item[0])))


def _broken(checked: Checked) -> Iterator[str]:
    for part in checked.parts:
        broken = [look.problem for look in part.looks if look.problem is not None]
        if broken:
            yield _listed(f"{part.name}: {counted(len(broken), 'broken file')}", broken)
        if broken and len(broken) == len(part.looks):
            yield f"{part.name}: no file can be read"


def _too_small(part: Part, crop_size: int, upscale: bool) -> Iterator[str]:
    if small := too_small(part, crop_size, upscale):
        text = f"{part.name}: {counted(len(small), 'picture')} smaller than the crop of {crop_size} pixels"
        names = [f"{look.path} ({look.width} x {look.height})" for look in small]
        yield _listed(f"{text} (data.upscale=true enlarges them, or lower data.crop_size)", names)


def _leaks(checked: Checked) -> Iterator[str]:
    """Pictures of a split that are judged by, in a split that is learned or chosen from."""
    for domain in DOMAINS:
        for split, before in (("test", ("training", "validation")), ("validation", ("training",))):
            for other in before:
                leaks = [
                    (twin, next(t for t in twins if (t.part.split, t.part.domain) == (other, domain)))
                    for twins in checked.twins
                    if any((t.part.split, t.part.domain) == (other, domain) for t in twins)
                    for twin in twins
                    if (twin.part.split, twin.part.domain) == (split, domain)
                ]
                if leaks:
                    text = (
                        f"leak: {counted(len(leaks), f'{split} picture')} of domain {domain} in {other} too"
                    )
                    yield _listed(f"{text}; take one of each out", [_shown(*leak) for leak in leaks])


def _in_both_domains(checked: Checked) -> Iterator[str]:
    both = []
    for twins in checked.twins:
        a, b = ([t for t in twins if t.part.domain == domain and t.same] for domain in DOMAINS)
        both += [(one, other) for one in a for other in b if one.look.digest == other.look.digest][:1]
    if both:
        whole = min(len(part.looks) for part in checked.parts if part.split == "training")
        text = f"{counted(len(both), 'picture')} in both domains, equal pixel by pixel"
        same = "; is one domain the other's copy?" if len(both) > whole / 2 else ""
        yield _listed(text + same, [_shown(*pair) for pair in both])


def _numbers(checked: Checked) -> Iterator[str]:
    sides = {d: len(p.readable) for d in DOMAINS if (p := checked.part("training", d)) is not None}
    for domain, number in sides.items():
        if number < FEW:
            yield (
                f"domain {domain}: only {counted(number, 'training picture')}; more are better, or try "
                "method.differentiable_augmentation=[colour,translation,cutout]"
            )
    if len(sides) == 2 and max(sides.values()) > UNBALANCED * max(1, min(sides.values())):
        yield f"unbalanced: {sides['a']} training pictures of a, {sides['b']} of b; the fewer are seen more often"


def _colours(checked: Checked) -> Iterator[str]:
    shares = {d: gray_share(p) for d in DOMAINS if (p := checked.part("training", d)) and p.readable}
    if len(shares) == 2 and max(shares.values()) > 0.9 and min(shares.values()) < 0.5:
        gray = max(shares, key=lambda domain: shares[domain])
        yield f"domain {gray} is gray, the other in colour: the translation back must make colours up"
    for part in checked.parts:
        if part.readable and 0.05 < (share := gray_share(part)) < 0.5:
            yield f"{part.name}: {share:.0%} of the pictures are gray, the others in colour"


def gray_share(part: Part) -> float:
    """The share of the pictures that are gray."""
    return float(np.mean([look.gray for look in part.readable]))


def paired(checked: Checked) -> list[str]:
    """The splits whose every picture has a counterpart of the same name in the other domain."""
    return [split for split, a, b in _held_out(checked) if set(a.folder.names) == set(b.folder.names)]


def _held_out(checked: Checked) -> Iterator[tuple[str, Part, Part]]:
    """The splits that were given for both domains and are not learned from."""
    for split in ("validation", "test"):
        a, b = checked.part(split, "a"), checked.part(split, "b")
        if a is not None and b is not None and split not in checked.cut:
            yield split, a, b


def _pairs(checked: Checked) -> Iterator[str]:
    """Splits that look paired and are not quite: then the error against the counterparts is not measured."""
    for split, a, b in _held_out(checked):
        names = [set(part.folder.names) for part in (a, b)]
        alone = sorted(names[0] ^ names[1])
        if alone and len(names[0] & names[1]) > min(map(len, names)) / 2:
            text = f"{split}: {counted(len(alone), 'name')} in one domain only, so it is not paired"
            yield _listed(text, alone)


def _alike(checked: Checked) -> Iterator[str]:
    for part in checked.parts:
        groups = [own for twins in checked.twins if len(own := [t for t in twins if t.part is part]) > 1]
        if groups:
            number = sum(map(len, groups))
            text = (
                f"{part.name}: {number} pictures show what another shows, in {counted(len(groups), 'group')}"
            )
            yield _listed(text, [_shown(own[0], own[1]) for own in groups])
    training = [
        {d: t for t in reversed(twins) if t.part.split == "training" for d in DOMAINS if t.part.domain == d}
        for twins in checked.twins
        if not any(t.same for t in twins)
    ]
    if across := [_shown(found["a"], found["b"]) for found in training if len(found) == 2]:
        yield _listed(f"training: {counted(len(across), 'picture')} of a that b shows too", across)


def _odd(part: Part) -> Iterator[str]:
    if flat := [str(look.path) for look in part.readable if look.flat]:
        yield _listed(f"{part.name}: {counted(len(flat), 'picture')} of one colour, or nearly", flat)
    if long := [f"{look.path} ({look.width} x {look.height})" for look in odd(part)]:
        yield _listed(
            f"{part.name}: {counted(len(long), 'picture')} of which a square crop shows little", long
        )
    if out := [str(look.path) for look in part.looks if look.leads_out]:
        yield _listed(f"{part.name}: {counted(len(out), 'file')} lying elsewhere, by a link", out)


def _left_out(folder: Folder) -> Iterator[str]:
    """Photographs of a kind that is not read may be among them."""
    if found := left_out(folder):
        endings = [f"{ending or 'none'} {number}" for ending, number in [*found.items()][:_ENDINGS]]
        if rest := sum([*found.values()][_ENDINGS:]):
            endings.append(f"others {rest}")
        text = f"{counted(sum(found.values()), 'file')} left out for the name's ending"
        yield f"{folder.root}: {text}: {', '.join(endings)}"


def _shown(one: Twin, other: Twin) -> str:
    return f"{one.look.path} {'=' if one.look.digest == other.look.digest else '~'} {other.look.path}"


def _listed(text: str, names: list[str]) -> str:
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{text}: {'; '.join(names[:_SHOWN])}{more}"
