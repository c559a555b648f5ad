"""What the page shows, and which function answers which control."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gan_nst.core.errors import DataError, GanNstError, SettingsError, counted
from gan_nst.core.options import Finish, Naming
from gan_nst.web.jobs import Jobs, Result, archive

WAITING = 20  # translations in the queue

_COLOURS = [
    ("the translation's", "none"),
    ("adjusted to the image's", "statistics"),
    ("the image's own", "luma"),
]
_FORMATS = [
    ("PNG", "png"),
    ("JPEG", "jpeg"),
    ("WebP", "webp"),
    ("TIFF", "tiff"),
    ("AVIF", "avif"),
    ("as it came", "same"),
]
_FONTS = ["system-ui", "sans-serif"]  # none that would be fetched
_CODE = ["ui-monospace", "monospace"]
# As wide empty as full; results in as many columns as fit, and no room kept below few; nothing to take out of the list
# of downloads.
_STYLE = """
.gradio-container > main {width: 100%; max-width: 1200px !important; margin: 0 auto}
#gallery, #gallery .gallery-container, #gallery .grid-wrap {
    height: auto !important; min-height: 0 !important; max-height: none !important
}
#gallery .grid-container {
    padding-top: 32px; grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)) !important
}
#downloads .label-clear-button {display: none}
"""


def make_page(jobs: Jobs) -> Any:
    """The page as Gradio's Blocks, which need `look()` when they are served."""
    import gradio as gr

    actions = _Actions(jobs)
    titles = [(source.title, number) for number, source in enumerate(jobs.offer.sources)]
    directions = jobs.offer.directions(0)

    def chosen(shown: list[tuple[str, str]], event: gr.SelectData) -> tuple[str, str]:
        before, after = shown[event.index]
        return before, after

    with gr.Blocks(title="Translate images", analytics_enabled=False) as page:
        gr.Markdown(f"# Translate images{_with(titles)}")
        shown = gr.State([])
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label=f"Images: up to {jobs.count}, of {jobs.upload // 1_000_000} MB each",
                    file_count="multiple",
                    file_types=["image", ".avif", ".tif", ".tiff"],
                    height=160,
                    elem_id="images",
                )
                run = gr.Dropdown(titles, value=0, label="Run", visible=len(titles) > 1, elem_id="run")
                direction = gr.Radio(
                    directions,
                    value=directions[0][1],
                    label="Direction",
                    visible=len(directions) > 1,
                    elem_id="direction",
                )
                strength = gr.Slider(
                    0,
                    1,
                    1,
                    step=0.05,
                    label="Strength",
                    info="0 leaves the image as it is, 1 translates it fully.",
                )
                colours = gr.Radio(
                    _COLOURS, value="none", label="Colours", info="Whose colours the result has."
                )
                with gr.Accordion("More", open=False):
                    scale = gr.Slider(
                        0.1,
                        1,
                        1,
                        step=0.05,
                        label="Working size",
                        info="Below 1 the image is translated smaller, which is faster; its detail is put back.",
                    )
                    form = gr.Dropdown(
                        _FORMATS, value="png", label="Save as", info="PNG and TIFF lose nothing."
                    )
                with gr.Row():
                    go = gr.Button("Translate", variant="primary", min_width=120, elem_id="go")
                    stop = gr.Button("Cancel", min_width=80, elem_id="stop")
            with gr.Column(scale=2, min_width=300):
                status = gr.Markdown("Drop an image, then press Translate.", elem_id="status")
                compare = gr.ImageSlider(
                    label="Before and after",
                    interactive=False,
                    max_height=640,
                    buttons=["fullscreen"],
                    elem_id="compare",
                )
                gallery = gr.Gallery(
                    label="Results: choose one to compare",
                    visible=False,
                    columns=4,
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="gallery",
                )
                downloads = gr.File(
                    label="Download, in full quality",
                    visible=False,
                    interactive=False,
                    file_count="multiple",
                    elem_id="downloads",
                )

        job = go.click(
            actions.translate,
            [files, run, direction, strength, colours, scale, form],
            [status, compare, gallery, downloads, shown],
            api_name="translate",
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=[status],
        )
        stop.click(lambda: "Cancelled.", None, status, cancels=[job], queue=False, api_visibility="private")
        run.change(actions.directions, run, direction, queue=False, api_name="directions")
        gallery.select(chosen, shown, compare, queue=False, api_visibility="private")
    page.queue(max_size=WAITING, api_open=False)
    return page


def look() -> dict[str, Any]:
    """How the page is dressed: in fonts that every machine has."""
    import gradio as gr

    return {
        "theme": gr.themes.Default(font=_FONTS, font_mono=_CODE).set(
            block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400"
        ),
        "css": _STYLE,
        "footer_links": [],
    }


@dataclass(frozen=True)
class _Actions:
    """What the controls call; whatever a visitor sends arrives here unchecked."""

    jobs: Jobs

    def translate(
        self,
        files: list[str] | None,
        run: int,
        direction: str,
        strength: float,
        colours: str,
        scale: float,
        form: str,
    ) -> Iterator[tuple[Any, ...]]:
        """Translates uploaded images; each update shows the results so far."""
        import gradio as gr

        results: list[Result] = []
        failures: list[str] = []
        files = files or []
        try:
            finish, naming = _finish(strength, colours, scale), _naming(form)
            yield _working(1, len(files)), *_view(results)
            for made in self.jobs.run(files, run, direction, finish, naming):
                if isinstance(made, Result):
                    results.append(made)
                else:
                    failures.append(made)
                    gr.Warning(html.escape(made))
                done = len(results) + len(failures)
                if done < len(files):
                    yield _working(done + 1, len(files)), *_view(results)
            if not results:
                raise DataError(
                    failures[0] if len(failures) == 1 else "none of these images could be translated"
                )
        except GanNstError as error:
            yield f"Not translated: {html.escape(str(error))}", *_view([])
            raise _refusal(str(error)) from None
        yield _said(results, failures), *_view(results, whole=True)

    def directions(self, run: int) -> Any:
        """The directions of a run, for the choice of one."""
        import gradio as gr

        try:
            known = self.jobs.offer.directions(run)
        except GanNstError as error:
            raise _refusal(str(error)) from None
        return gr.Radio(choices=known, value=known[0][1], visible=len(known) > 1)


def _finish(strength: float, colours: str, scale: float) -> Finish:
    if colours not in dict(_COLOURS).values():
        raise SettingsError("no such colours here; choose one of those shown")
    if not (0 <= strength <= 1 and 0.1 <= scale <= 1):  # not a number, too
        raise SettingsError("strength lies between 0 and 1, the working size between 0.1 and 1")
    return Finish(colours, strength, scale)  # type: ignore[arg-type]


def _naming(form: str) -> Naming:
    if form not in dict(_FORMATS).values():
        raise SettingsError("no such format here; choose one of those shown")
    return Naming(form)  # type: ignore[arg-type]


def _view(results: list[Result], whole: bool = False) -> tuple[Any, ...]:
    """What the page shows of results: the first one compared, all in the gallery, the files when all are there."""
    import gradio as gr

    if not results:
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
    pairs = [(str(result.before), str(result.after)) for result in results]
    several = len(results) > 1
    files = [str(result.file) for result in results]
    if whole and several:
        files.append(str(archive(results, results[0].file.parent)))
    return (
        pairs[0],
        gr.Gallery(
            [(after, result.file.name) for (_, after), result in zip(pairs, results, strict=True)],
            visible=several,
        ),
        gr.File(files, visible=whole),
        pairs,
    )


def _with(titles: list[tuple[str, int]]) -> str:
    """Where there is nothing to choose from, what translates."""
    return f"\n\nwith `{titles[0][0]}`" if len(titles) == 1 else ""


def _working(at: int, count: int) -> str:
    return f"Translating image {at} of {count} ..." if count > 1 else "Translating ..."


def _said(results: list[Result], failures: list[str]) -> str:
    """One line of what became of all images, and one for each that failed."""
    lines = [f"Done: {counted(len(results), 'image')} translated."] + [
        f"- not translated: {html.escape(line)}" for line in failures
    ]
    return "\n\n".join(lines)


def _refusal(line: str) -> Exception:
    """Gradio's error, which the page shows as one line and goes on from."""
    import gradio as gr

    error: Exception = gr.Error(html.escape(line), duration=None, print_exception=False)
    return error
