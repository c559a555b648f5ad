"""Settings, valid and invalid, as files and as overrides."""

import yaml
from hypothesis import strategies as st

from gan_nst.core.settings import setting_paths
from gan_nst.methods import base
from gan_nst.runs.settings import settings_model

_PATHS = sorted({path for name in base.names() for path, _ in setting_paths(settings_model(base.find(name)))})

_SCALARS = [
    *(
        "1",
        "0",
        "-1",
        "2e-4",
        "1e400",
        ".nan",
        ".inf",
        "-.inf",
        "0x_",
        "0b2",
        "1_000",
        "190:20:30",
        "-0",
        "0o7",
    ),
    *(
        "9" * 5000,
        "0x" + "f" * 5000,
        "1" * 400 + ".5",
        "true",
        "no",
        "null",
        "~",
        "''",
        "auto",
        "cyclegan",
        "=",
    ),
    *(
        "2001-13-45",
        "2001-12-14",
        "2001-12-14t21:59:43.10-05:00",
        "2001-01-01t99:99:99z",
        "<<",
        "-",
        "?",
        "@",
        "`",
    ),
    *(
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!binary x",
        "!!binary aGk=",
        "!!binary /w==",
        "!!null x",
    ),
    *(
        "!!python/object/apply:os.system ['touch executed']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!x y",
    ),
    *(
        "!!python/object/new:subprocess.Popen [[touch, executed]]",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
    ),
    *(
        '"\\0"',
        '"\\ud800"',
        '"\\udc80"',
        '"\\x1b[31m"',
        '"a\\nb\\rc\\x85d\\u2028e"',
        '"\\',
        "*x",
    ),
    *(
        "[" * 400,
        "{a: " * 100 + "1" + "}" * 100,
        "[" * 20 + "]" * 20,
        "[1, [2, {x: 3}]]",
        "{name: Blur}",
        "[{name: Blur}]",
    ),
    *(
        "[{name: Blur, p: .nan}]",
        "[{name: Blur, x: 2001-12-14}]",
        "[{name: Blur, x: !!binary /w==}]",
        "{1: 2}",
    ),
    *(
        "{2001-12-14: 1}",
        "{? [a] : 1}",
        "{null: 1}",
        "{1.5: 1, .nan: 2}",
        "x" * 3000,
        "'" + "y " * 2000 + "'",
    ),
]


def _dumped(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()


_values = st.recursive(
    st.sampled_from(_SCALARS)
    | st.one_of(st.integers(), st.floats(), st.text(max_size=30)).map(_dumped)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(st.tuples(st.sampled_from(["name", "p", "<<", "a b", "? x"]), inner), max_size=3).map(
            lambda found: "{" + ", ".join(f"{key}: {value}" for key, value in found) + "}"
        )
    ),
    max_leaves=6,
)
_keys = st.sampled_from(_PATHS) | st.text(st.characters(codec="utf-8"), max_size=12)


def _document(entries: list[tuple[str, str]]) -> str:
    """The entries, such as ("a.b", value), as YAML with one line per section."""
    tree: dict = {}
    for path, value in entries:
        *sections, last = path.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {}) if isinstance(at.get(section, {}), dict) else {}
        at[last] = value
    return "".join(f"{key}: {_flow(value)}\n" for key, value in tree.items())


def _flow(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"


_documents = st.lists(st.tuples(_keys, _values), max_size=6).map(_document)
_named = st.tuples(
    st.sampled_from(
        ["method: {name: cyclegan}\n", "method: {name: cartoongan}\n", "on_cpu: ", "---\n", "\ufeff"]
    ),
    _documents,
).map("".join)
_extremes = st.one_of(
    st.integers(1, 20000).map(lambda depth: "data: " + "[" * depth + "]" * depth),
    st.integers(1, 20000).map(lambda depth: "data: " + "{a: " * depth),
    st.integers(1, 2000).map(lambda depth: "\n".join(" " * n + f"a{n}:" for n in range(depth))),
    st.integers(1, 5000).map(lambda count: "".join(f"key{n}: {n}\n" for n in range(count))),
    st.integers(1, 150_000).map(lambda length: "data: '" + "x" * length),
    st.integers(1, 150_000).map(lambda length: "&" * length + ": *" + "y" * length),
)
_encodings = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])


@st.composite
def settings_files(draw: st.DrawFn) -> bytes:
    """The bytes of a settings file, mostly with settings that exist."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    text = draw(st.one_of(_named, _named, _documents, _extremes))
    content = text.encode(draw(_encodings), errors="surrogatepass")
    if draw(st.integers(0, 3)) == 0 and content:
        at = draw(st.integers(0, len(content) - 1))
        content = content[:at] + draw(st.binary(max_size=4)) + content[at + draw(st.integers(0, 4)) :]
    return content


_override = st.tuples(
    _keys, st.sampled_from(["=", "=", "=", "", "==", " = ", ".="]), _values | st.text(max_size=40)
)
_extreme_overrides = st.one_of(
    st.integers(1, 5000).map(lambda depth: ".".join(["a"] * depth) + "=1"),
    st.integers(1, 5000).map(lambda depth: "data.augmentations=" + "[" * depth),
    st.integers(1, 40_000).map(lambda length: "x" * length + "=1"),
    st.integers(1, 40_000).map(lambda length: "seed=" + "1" * length),
    st.just("data.augmentations=&a [*a]"),
)


def override_texts() -> st.SearchStrategy[bytes]:
    """Overrides separated by NULs."""
    texts = st.lists(_override.map("".join) | _override.map("".join) | _extreme_overrides, max_size=4)
    return texts.map(lambda found: "\0".join(found).encode(errors="surrogatepass"))
