"""The report of a run: complete, escaped, a single file; and how a browser shows it."""

import base64
import copy
import io
import re

import numpy as np
import pytest
from helpers_pages import Page, browse, inked, needs_browser, outside
from PIL import Image

from gan_nst.core.scores import label
from gan_nst.diagnosis.rules import Finding
from gan_nst.evaluation.report import Sheet, render

EVIL = "<script>alert('&\"')</script>"
HASH = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
CURVES = b"""<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 30"><path d="M0 3L90 20" stroke="#b00"/></svg>"""
COLUMNS = {
    "best": "best",
    "last": "last",
    "untouched": "untouched input",
    "colour_map": "colour map",
    "noise_floor": "noise floor",
}
NOT_SCORES = ("_std", "_subset_size")
NONE = "\N{EN DASH}"


def png(seed=0, size=(60, 40)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def column(factor, step=None, intervals=True):
    scores = {
        "fid_768": 12.3456 * factor,
        "kid_768": 0.00123 * factor - 0.001,
        "kid_768_std": 0.0002,
        "kid_768_subset_size": 17,
        "precision_768": 0.7 / factor,
        "frechet_random": 1234.5 * factor,
        "lpips_to_input": 0.2134,
        "error": 0.1196 * factor,
        "ssim": 0.5134 / factor,
    }
    values = {key: value for key, value in scores.items() if not key.endswith(NOT_SCORES)}
    ends = {key: [value - abs(value) / 20, value + abs(value) / 16] for key, value in values.items()}
    return {**({"step": step} if step else {}), **scores, **({"intervals": ends} if intervals else {})}


def translation(exported="best"):
    return {
        "generated": 60,
        "real": 61,
        "pairs": 59,
        "exported": exported,
        "last": column(1.05, 3000),
        "best": column(1, 2500),
        "untouched": column(3),
        "colour_map": column(1.02),
        "noise_floor": {"images": 30, "fid_768": 4.2, "kid_768": 0.00001},
        "warnings": ["FID needs more than 60 images."],
    }


EVALUATION = {
    "split": "test",
    "protocol": {
        "name": "clean",
        "resize": "bicubic",
        "features": "inception-768",
        "dimension": 768,
        "file": "weights.pth",
        "sha256": HASH,
        "lpips": {"network": "squeeze"},
        "libraries": {"torch-fidelity": "0.4.0"},
    },
    "ab": translation("best"),
    "ba": translation("last"),
    "generator": {"parameters": 88092, "multiply_adds": 67592448, "milliseconds": 22.523, "size": 48},
    "training": {"seconds": 400.0, "validation_share": 0.02, "steps": 3000},
    "environment": {"python": "3.11", "device": "cpu"},
}
FINDINGS = [
    Finding("collapse", "alarm", 1200, "The diversity is 0.1.", "start again"),
    Finding("checkerboard", "advice", 3000, "The peak is 2.3.", "use resizing"),
]
SETTINGS = "data:\n  domain: photo2cartoon\nevaluation:\n  score: ab/fid_768\n"


def report(**changes):
    complete = {
        "title": "photo2cartoon, cyclegan, run 1",
        "evaluation": EVALUATION,
        "findings": FINDINGS,
        "score": "ab/fid_768",
        "curves": CURVES,
        "sheets": [Sheet("the median ones", png())],
        "settings": SETTINGS,
    }
    return render(**{**complete, **changes})


EMPTY = render(title="a run", evaluation={}, score=None, findings=[], curves=None, sheets=[], settings="")


def numbers(text):
    """All numbers of a text, as floats."""
    text = text.replace("\N{MINUS SIGN}", "-").replace(",", "")
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text)]


def only(**parts):
    return report(evaluation=parts, findings=[], curves=None, sheets=[], settings="")


def test_every_score_is_in_the_table_with_its_interval():
    page = Page(report())
    assert len(page.tables) == 2
    seen = 0
    for name, table in zip(("ab", "ba"), page.tables, strict=True):
        heads = [head.split() for head in table[0]]
        rows = {re.sub(r"[↑↓].*", "", row[0], flags=re.S).strip(): row for row in table[1:]}
        for key, title in COLUMNS.items():
            words = title.split()
            (place,) = [i for i, head in enumerate(heads) if head[: len(words)] == words]
            values = EVALUATION[name][key]
            for score, value in values.items():
                if score in ("step", "images", "intervals") or score.endswith(NOT_SCORES):
                    continue
                cell = " ".join(rows[label(score)][place].split())
                ends = values.get("intervals", {}).get(score, [])
                wide = max(map(abs, [value, *ends]))
                assert numbers(cell) == pytest.approx([value, *ends], rel=6e-3, abs=6e-3 * wide)
                assert bool(ends) == bool(re.search(r"\[.*, .*\]$", cell))
                seen += 1
    assert seen == 2 * (4 * 7 + 2)


def test_the_exported_column_and_the_chosen_score_are_marked():
    for table, exported in zip(Page(report()).tables, ("best", "last"), strict=True):
        marked = [head.split()[0] for head in table[0] if "exported" in head]
        assert marked == [exported]
    ab, ba = Page(report()).tables
    assert [row[0].split()[0] for row in ab if "picks the best" in row[0]] == ["FID-768"]
    assert not [row for row in ba if "picks the best" in row[0]]


def test_arrows_show_which_values_are_better():
    (ab, _) = Page(report()).tables
    arrows = {re.sub(r"[↑↓].*", "", row[0], flags=re.S).strip(): row[0] for row in ab[1:]}
    assert "↓" in arrows["FID-768"]
    assert "↓" in arrows["mean absolute error"]
    assert "↑" in arrows["SSIM"]
    assert "↑" in arrows["precision-768"]
    assert not set("↑↓") & set(arrows["LPIPS to the input"])


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((2, [1.8, 2.2]), (3, [2.5, 3.5]), "clearly better than the untouched input (3.000)"),
        ((4, [3.8, 4.2]), (3, [2.5, 3.5]), "clearly worse than the untouched input (3.000)"),
        (
            (2, [1.4, 2.6]),
            (3, [2.5, 3.5]),
            "better than the untouched input (3.000), but the intervals overlap",
        ),
        ((2.9, [2.6, 3.2]), (3, [2.5, 3.5]), ": better than the untouched input (3.000), but the intervals"),
        ((3.1, [2.6, 3.4]), (3, [2.5, 3.5]), ": worse than the untouched input (3.000), but the intervals"),
        ((2, None), (3, [2.5, 3.5]), ": better than the untouched input (3.000)."),
        ((3, None), (3, None), "the same as the untouched input (3.000)"),
    ],
)
def test_the_verdict_is_clear_only_where_the_intervals_are_apart(ours, theirs, words):
    best, untouched = (
        {"fid_768": value, "error": 1, "intervals": {"fid_768": interval} if interval else {}}
        for value, interval in (ours, theirs)
    )
    text = Page(only(ab={"exported": "best", "best": best, "untouched": untouched})).text
    assert words in text
    assert text.count("clearly") == words.count("clearly")


def test_more_is_better_for_some_scores():
    ab = {
        "best": {"ssim": 0.4, "intervals": {"ssim": [0.35, 0.45]}},
        "untouched": {"ssim": 0.2, "intervals": {"ssim": [0.1, 0.3]}},
    }
    assert "SSIM of 0.4000: clearly better than the untouched input" in Page(only(ab=ab)).text


def test_the_verdict_uses_the_chosen_score_at_the_exported_step():
    text = Page(report(score="ab/error")).text
    assert "error of 0.1196 at step 2,500: clearly better" in text
    assert "error of 0.1256 at step 3,000: clearly better" in text
    for other in (None, "ab/kid"):
        assert "FID-768 of 12.35 at step 2,500" in Page(report(score=other)).text


def test_names_and_texts_are_escaped():
    evil = copy.deepcopy(EVALUATION)
    evil["split"] = evil["protocol"]["name"] = evil["protocol"]["sha256"] = EVIL
    evil["protocol"]["libraries"] = {EVIL: EVIL}
    evil["environment"][EVIL] = EVIL
    evil["ab"]["warnings"] = [EVIL]
    evil[EVIL] = evil["ab"]
    findings = [Finding(EVIL, EVIL, 1, EVIL, EVIL)]
    html = report(
        title=EVIL,
        evaluation=evil,
        findings=findings,
        sheets=[Sheet(EVIL, png())],
        settings=f"name: {EVIL}\n</code></pre>",
    )
    assert "<script" not in html
    page = Page(html)
    assert page.text.count(EVIL) > 15
    assert any(EVIL in attributes["alt"] for attributes in page.all("img"))
    assert EVIL in [attributes.get("title") for attributes in page.all("abbr")]
    assert not outside(page)


def parts():
    """The evaluation with one entry missing, or set to null, at any depth."""

    def without(value, path):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}, f"{path}{key} missing"
            yield {**value, key: None}, f"{path}{key} null"
            if isinstance(value[key], dict):
                for less, name in without(value[key], f"{path}{key}."):
                    yield {**value, key: less}, name

    small = {**EVALUATION, "ba": {"best": {"error": 0.1}}}
    return list(without(small, ""))


def test_any_entry_of_the_evaluation_may_be_missing():
    assert len(parts()) > 150
    for evaluation, name in parts():
        page = Page(report(evaluation=evaluation))
        assert "None" not in page.text, name
        assert all(len({len(row) for row in table}) == 1 for table in page.tables), name


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"curves": None}, {"Curves"}),
        ({"sheets": []}, {"Samples"}),
        ({"settings": " \n"}, {"Settings"}),
        (
            {"evaluation": {k: v for k, v in EVALUATION.items() if k not in ("ab", "ba")}},
            {"Scores"},
        ),
        ({"evaluation": {k: v for k, v in EVALUATION.items() if k != "generator"}}, {"Generator"}),
        ({"evaluation": {k: v for k, v in EVALUATION.items() if k != "training"}}, {"Timing"}),
        ({"evaluation": {k: v for k, v in EVALUATION.items() if k != "environment"}}, {"Environment"}),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, set) else "",
)
def test_sections_without_data_are_omitted(changes, gone):
    all_headings, remaining = (Page(report(**change)).headings for change in ({}, changes))
    assert all_headings == [
        "Scores",
        "Protocol",
        "Curves",
        "Findings",
        "Samples",
        "Generator",
        "Timing",
        "Settings",
        "Environment",
    ]
    assert remaining == [heading for heading in all_headings if heading not in gone]


def test_rows_and_columns_without_data_are_omitted():
    ab = {
        "best": {"error": 0.1},
        "last": {},
        "untouched": None,
        "noise_floor": {"fid_768": 2.0, "ssim": None},
    }
    (table,) = Page(only(ab=ab)).tables
    assert [" ".join(cell.split()) for cell in table[0]] == ["score", "best", "noise floor"]
    assert [row[0].split()[0] for row in table[1:]] == ["mean", "FID-768"]
    assert [[cell.strip() for cell in row[1:]] for row in table[1:]] == [["0.1000", NONE], [NONE, "2.000"]]


def test_warnings_are_shown_even_without_scores():
    page = Page(only(ab={"warnings": ["too few images"]}))
    assert "Too few images." in page.text
    assert not page.tables


def test_an_empty_report_is_still_a_page():
    page = Page(EMPTY)
    assert page.headings == ["Findings"]
    assert "none of the known failures" not in page.text


def test_failures_are_called_absent_only_if_there_are_curves():
    assert "none of the known failures" in Page(report(findings=[])).text
    text = Page(report(findings=[], curves=None)).text
    assert "none of the known failures" not in text
    assert "no training curves" in text


def test_findings_are_counted_and_listed():
    text = Page(report()).text
    assert "1 alarm and 1 piece of advice" in text
    assert -1 < text.index("collapse") < text.index("is 0.1") < text.index("start again")
    assert text.index("start again") < text.index("checkerboard") < text.index("use resizing")
    assert "at step 1,200" in text


def test_the_protocol_names_its_weights_and_libraries():
    page = Page(report())
    assert HASH in [attributes.get("title") for attributes in page.all("abbr")]
    assert HASH not in page.text
    for words in (HASH[:12], "inception-768", "weights.pth", "torch-fidelity", "0.4.0", "squeeze"):
        assert words in page.text
    assert "60 generated images, 61 real images, 59 pairs" in page.text


def test_costs_have_units():
    text = Page(report()).text
    for words in ("88,092", "67.6 million", "22.52 ms for an image of 48 by 48 pixels", "6 min 40 s", "2 %"):
        assert words in text


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("lpips_to_input", "highest LPIPS to the input"),
        ("error", "highest error"),
        ("change", "highest change"),
    ],
)
def test_the_samples_say_how_they_were_chosen(score, words):
    evaluation = {"split": "test", "ab": {"best": {score: 0.2}}}
    assert words in Page(report(evaluation=evaluation)).text


def test_images_are_embedded_unchanged():
    files = [png(1), png(2, (30, 70))]
    page = Page(report(sheets=[Sheet("one", files[0]), Sheet("two", files[1])]))
    images = page.all("img")
    inside = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
    assert inside == [CURVES, *files]
    assert [image["src"].partition(",")[0] for image in images] == [
        "data:image/svg+xml;base64",
        "data:image/png;base64",
        "data:image/png;base64",
    ]


@pytest.mark.parametrize("html", [report(), EMPTY], ids=["full", "empty"])
def test_the_page_loads_nothing_and_runs_nothing(html):
    page = Page(html)
    assert not outside(page)
    assert "default-src 'none'" in page.all("meta")[2]["content"]


def test_outside_content_would_be_found():
    for evil in (
        '<script src="x.js"></script>',
        '<img src="http://example.invalid/x.png">',
        "<p style=\"background: url('x.png')\"></p>",
        "<style>@import 'x.css'</style>",
        "<style>p { src: url(//example.invalid) }</style>",
        '<p onclick="f()"></p>',
        '<a href="//example.invalid"></a>',
    ):
        assert outside(Page(evil)), evil


@pytest.mark.parametrize("wrong", ["<p><b></p></b>", "<div>", "</p>", "<p><ul></ul></p>"])
def test_wrong_nesting_would_be_found(wrong):
    with pytest.raises((AssertionError, IndexError)):
        Page(wrong)


def test_the_page_is_accessible():
    page = Page(report())
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert len(page.all("h1")) == 1


@needs_browser
def test_a_browser_shows_the_report_without_requests(tmp_path):
    hosts, console, pixels = browse(report(), tmp_path)
    assert hosts == []
    assert console == []
    assert inked(pixels) > 0.05
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


@needs_browser
def test_a_page_with_requests_would_be_caught(tmp_path):
    html = "<img src=http://example.invalid/x.png><img src=https://127.0.0.1:8443/y><script>console.error('no')</script>"
    hosts, console, pixels = browse(html, tmp_path)
    assert {"example.invalid", "127.0.0.1:8443"} <= set(hosts)
    assert any("no" in line for line in console)
    assert inked(pixels) < 0.05
