"""Mutations that turn valid files into invalid ones."""

import copy
import io
import zipfile

from hypothesis import strategies as st


def _places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths to everything in nested plain data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in _places(part, (*path, key)))]


@st.composite
def changed_data(draw: st.DrawFn, original: object, values: st.SearchStrategy) -> object:
    """Nested plain data with one to three of its parts removed, renamed, or replaced by one of `values`."""
    found = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        at = found
        for key in (path := draw(st.sampled_from(_places(found))))[:-1]:
            at = at[key]
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(values)
        elif (how := draw(st.integers(0, 5))) == 0:
            del at[path[-1]]
        elif how == 1 and isinstance(at, dict):
            at[draw(st.sampled_from(["", "x", "a\nb", "step", "__class__"]))] = at.pop(path[-1])
        else:
            at[path[-1]] = copy.deepcopy(draw(values))  # copied because the next mutation may change it
    return found


@st.composite
def changed_bytes(draw: st.DrawFn, original: bytes, most: int = 8) -> bytes:
    """Bytes with some positions overwritten, a section removed or duplicated, or the end truncated."""
    content, how = bytearray(original), draw(st.integers(0, 9))
    at = st.integers(0, max(0, len(content) - 1))
    if how == 0:  # draws what is cut off, because small numbers are frequent and would keep next to nothing
        return bytes(content[: -draw(st.integers(1, max(1, len(content) - 1)))])
    if how in (1, 2):
        first, length = draw(at), draw(st.integers(1, 64))
        content[first : first + (length if how == 1 else 0)] = content[first : first + length] * (how - 1) * 2
    for _ in range(draw(st.integers(1, most))):
        first, new = draw(at), draw(st.binary(min_size=1, max_size=4))
        content[first : first + len(new)] = new
    return bytes(content)


@st.composite
def changed_archive(draw: st.DrawFn, original: bytes, code: str) -> bytes:
    """A zip archive with a member changed, removed, duplicated, compressed or added; its checksums are correct.

    code: how the name of the member ends that is changed most often.
    """
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(members, key=lambda name: (not name.endswith(code), name))
    chosen = names[0] if draw(st.booleans()) else draw(st.sampled_from(names))
    how, packing, content = draw(st.integers(0, 7)), zipfile.ZIP_STORED, [*members.items()]
    place = list(members).index(chosen)
    if how == 0:
        del content[place]
    elif how == 1:
        content.append((chosen, draw(st.binary(max_size=50))))
    elif how == 2:
        content.append(
            (
                draw(st.sampled_from(["x/constants.pkl", "../out", "x/code/a.py", "x/data.pkl", "/x"])),
                b"\x80\x02N.",
            )
        )
    elif how == 3:
        packing = zipfile.ZIP_DEFLATED
        if draw(st.booleans()):
            content[place] = (chosen, bytes(draw(st.integers(0, 30_000_000))))
    else:
        content[place] = (chosen, draw(changed_bytes(members[chosen], 3)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as archive:
        for name, data in content:
            archive.writestr(zipfile.ZipInfo(name), data, packing)
    return draw(changed_bytes(packed.getvalue(), 2)) if draw(st.integers(0, 9)) == 0 else packed.getvalue()
