"""What the page shows, and the functions behind its controls."""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from gan_nst.core.errors import GanNstError, counted
from gan_nst.core.options import AppOptions, ImageFormat, PreserveColor, TranslateOptions
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


def make_page(jobs: Jobs, options: AppOptions) -> gr.Blocks:
    """Returns the page, to be launched with `THEME` and `STYLE`."""
    labels = [choice.label for choice in jobs.choices]

    def translate(
        files: list[str] | None,
        run: int,
        strength: float,
        colours: PreserveColor,
        scale: float,
        form: ImageFormat,
    ) -> Iterator[dict[Any, Any]]:
        """Translates uploads. Each update shows the results so far."""
        results: list[Result] = []
        failures: list[str] = []
        view: dict[Any, Any] = {}
        if not files:
            failures = ["no image yet; drop one first"]
        elif len(files) > MAX_IMAGES:
            files, failures = [], [f"{len(files)} images; translate at most {MAX_IMAGES} at a time"]
        for number, file in enumerate(files or [], 1):
            yield {
                status: f"Translating image {number} of {len(files or [])} ...",
                downloads: gr.File(visible=False),
                **view,
            }
            try:
                wanted = TranslateOptions(
                    device=options.device,
                    precision=options.precision,
                    max_pixels=options.max_pixels,
                    format=form,
                    preserve_color=colours,
                    strength=strength,
                    scale=scale,
                )
                results.append(jobs.translate(Path(file), run, wanted))
            except GanNstError as error:
                failures.append(html.escape(str(error)))
                gr.Warning(failures[-1])
            else:
                images = [(result.after, result.file.name) for result in results]
                view = {
                    compare: results[0][1:],
                    gallery: gr.Gallery(images, visible=len(images) > 1),
                    current_results: results,
                }
        if not results:
            problem = failures[0] if len(failures) == 1 else "none of these images could be translated"
            yield {status: f"Not translated: {problem}"}
            raise gr.Error(problem, duration=None, print_exception=False)
        lines = [f"Done: {counted(len(results), 'image')} translated."]
        lines += [f"- not translated: {line}" for line in failures]
        written = [str(result.file) for result in results]
        if len(results) > 1:
            try:
                written.append(str(archive(results)))
            except GanNstError as error:
                lines.append(f"- {html.escape(str(error))}")
        yield {status: "\n\n".join(lines), downloads: gr.File(written, visible=True), **view}

    def compare_chosen(current_results: list[Result], event: gr.SelectData) -> tuple[Path, Path]:
        return current_results[event.index].before, current_results[event.index].after

    with gr.Blocks(title="Translate images", analytics_enabled=False) as page:
        gr.Markdown("# Translate images" + (f"\n\nwith `{labels[0]}`" if len(labels) == 1 else ""))
        current_results = gr.State([])
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files = gr.File(
                    label=f"Images: up to {MAX_IMAGES}, at most {options.max_upload} MB each",
                    file_count="multiple",
                    file_types=["image", ".avif", ".tif", ".tiff"],
                    height=160,
                    elem_id="images",
                )
                run = gr.Dropdown(
                    [(label, number) for number, label in enumerate(labels)],
                    value=0,
                    label="Run",
                    visible=len(labels) > 1,
                    elem_id="run",
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
            [files, run, strength, colours, scale, form],
            [status, compare, gallery, downloads, current_results],
            api_name="translate",
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=[status],
        )
        stop.click(lambda: "Cancelled.", None, status, cancels=[job], queue=False, api_visibility="private")
        gallery.select(compare_chosen, current_results, compare, queue=False, api_visibility="private")
    page.queue(max_size=_QUEUE, api_open=False)
    return page
