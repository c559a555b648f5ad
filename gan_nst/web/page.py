"""What the page shows, and the functions behind its controls."""

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr

from gan_nst.core.errors import DataError, GanNstError, counted
from gan_nst.core.options import Finish, ImageFormat, Naming, PreserveColor
from gan_nst.web.jobs import MAX_IMAGES, Jobs, Result, archive

_QUEUE = 20  # translations that may wait
_COLOURS = [
    ("as translated", "none"),
    ("adjusted to the original", "statistics"),
    ("from the original", "luma"),
]
_FORMATS = [
    ("PNG", "png"),
    ("JPEG", "jpeg"),
    ("WebP", "webp"),
    ("TIFF", "tiff"),
    ("AVIF", "avif"),
    ("Same as the original", "same"),
]
# System fonts only: a web font would be fetched.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400"
)
# The page keeps its width when empty; the gallery has as many columns as fit and no empty rows; downloads cannot be
# removed from the list.
STYLE = """
.gradio-container > main {width: 100%; max-width: 1200px !important; margin: 0 auto}
#gallery, #gallery .gallery-container, #gallery .grid-wrap {
    height: auto !important; min-height: 0 !important; max-height: none !important
}
#gallery .grid-container {
    padding-top: 32px; grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)) !important
}
#downloads .label-clear-button {display: none}
"""


def make_page(jobs: Jobs, max_upload: int, kept: int) -> gr.Blocks:
    """Returns the page, to be launched with `THEME` and `STYLE`.

    max_upload: size of an image's file, in megabytes. kept: seconds until uploads and results are deleted.
    """
    runs = [(source.title, number) for number, source in enumerate(jobs.translators.sources)]
    directions = jobs.translators.directions(0)
    only_run = f"\n\nwith `{runs[0][0]}`" if len(runs) == 1 else ""

    def translate(
        files: list[str] | None,
        run: int,
        direction: str,
        strength: float,
        colours: PreserveColor,
        scale: float,
        form: ImageFormat,
    ) -> Iterator[tuple[Any, ...]]:
        """Translates uploads. Each update shows the results so far."""
        files = files or []
        results: list[Result] = []
        failures: list[str] = []
        try:
            yield _progress(1, len(files)), *_view(results)
            for made in jobs.run(files, run, direction, Finish(colours, strength, scale), Naming(form)):
                if isinstance(made, Result):
                    results.append(made)
                else:
                    failures.append(made)
                    gr.Warning(html.escape(made))
                done = len(results) + len(failures)
                if done < len(files):
                    yield _progress(done + 1, len(files)), *_view(results)
            if not results:
                raise DataError(
                    failures[0] if len(failures) == 1 else "none of these images could be translated"
                )
        except GanNstError as error:
            yield f"Not translated: {html.escape(str(error))}", *_view([])
            raise one_line_error(error) from None
        lines = [f"Done: {counted(len(results), 'image')} translated."]
        lines += [f"- not translated: {html.escape(line)}" for line in failures]
        yield "\n\n".join(lines), *_view(results, finished=True)

    def show_directions(run: int) -> gr.Radio:
        try:
            known = jobs.translators.directions(run)
        except GanNstError as error:
            raise one_line_error(error) from None
        return gr.Radio(choices=known, value=known[0][1], visible=len(known) > 1)

    def compare_chosen(shown: list[tuple[str, str]], event: gr.SelectData) -> tuple[str, str]:
        before, after = shown[event.index]
        return before, after

    with gr.Blocks(title="Translate images", analytics_enabled=False, delete_cache=(kept, kept)) as page:
        gr.Markdown(f"# Translate images{only_run}")
        shown = gr.State([])
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label=f"Images: up to {MAX_IMAGES}, at most {max_upload} MB each",
                    file_count="multiple",
                    file_types=["image", ".avif", ".tif", ".tiff"],
                    height=160,
                    elem_id="images",
                )
                run = gr.Dropdown(runs, value=0, label="Run", visible=len(runs) > 1, elem_id="run")
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
                    _COLOURS, value="none", label="Colours", info="Where the colours of the result come from."
                )
                with gr.Accordion("More", open=False):
                    scale = gr.Slider(
                        0.1,
                        1,
                        1,
                        step=0.05,
                        label="Working size",
                        info="Below 1, a smaller copy is translated, which is faster; the detail is restored.",
                    )
                    form = gr.Dropdown(
                        _FORMATS, value="png", label="Save as", info="PNG and TIFF are lossless."
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
                    label="Results: select one to compare",
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
            translate,
            [files, run, direction, strength, colours, scale, form],
            [status, compare, gallery, downloads, shown],
            api_name="translate",
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=[status],
        )
        stop.click(lambda: "Cancelled.", None, status, cancels=[job], queue=False, api_visibility="private")
        run.change(show_directions, run, direction, queue=False, api_name="directions")
        gallery.select(compare_chosen, shown, compare, queue=False, api_visibility="private")
    page.queue(max_size=_QUEUE, api_open=False)
    return page


def _progress(number: int, count: int) -> str:
    return f"Translating image {number} of {count} ..." if count > 1 else "Translating ..."


def _view(results: list[Result], finished: bool = False) -> tuple[Any, ...]:
    """Returns the updates that show results: the first compared, all in the gallery, the files once all are done."""
    if not results:
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
    pairs = [(str(result.before), str(result.after)) for result in results]
    several = len(results) > 1
    files = [str(result.file) for result in results]
    if finished and several:
        files.append(str(archive(results, results[0].file.parent)))
    images = [(str(result.after), result.file.name) for result in results]
    return pairs[0], gr.Gallery(images, visible=several), gr.File(files, visible=finished), pairs


def one_line_error(error: GanNstError) -> gr.Error:
    """Returns the error that the page shows as one line."""
    return gr.Error(html.escape(str(error)), duration=None, print_exception=False)
