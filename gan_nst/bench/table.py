"""What was measured, as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

_MISSING = "not measured"


def as_text(result: Mapping[str, Any]) -> str:
    """The table of a whole result: a row a figure, or a few that are read together."""
    rows = [
        row for section, write in _SECTIONS.items() if section in result for row in write(result[section])
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in rows)


Rows = Iterator[tuple[str, str]]


def _machine(machine: Mapping[str, Any]) -> Rows:
    yield (
        "machine",
        f"{machine['processor']}, {machine['cores']} cores; device {machine['device']}{_load(machine['load'])}",
    )
    yield (
        "versions",
        f"gan_nst {machine['gan_nst']}, torch {machine['torch']}, threads: {machine['torch_threads']}",
    )
    yield "bfloat16 native", "yes" if machine["bfloat16_native"] else "no"


def _ceiling(ceiling: Mapping[str, Mapping[str, float]]) -> Rows:
    for name, what in {"convolution": "3x3 convolution", "matrix_product": "matrix product"}.items():
        yield what, ", ".join(f"{precision} {_rate(rate)}" for precision, rate in ceiling[name].items())


def _cyclegan_step(step: Mapping[str, Any]) -> Rows:
    shape = f"{step['size']} pixels, width {step['width']}, {step['blocks']} blocks, batch {step['batch']}"
    of = f"{step['operations'] / 1e9:.4g} GFLOP; medians of {step['rounds']} rounds, in turns"
    yield "CycleGAN's step", f"{shape}; {of}"
    yield "", f"the reference is the written-out loop in {step['reference_is']}"
    for name, value in step.items():
        if isinstance(value, Mapping) and "ratio" in value:
            yield f"  {name.replace('_', ' ')}", _candidate(value)
    if step["batches"] is None:
        yield "  larger batches", f"{_MISSING} (on CUDA alone)"
    for batch, value in (step["batches"] or {}).items():
        share = f"{value['share_of_matrix_product']:.0%} of the matrix product"
        yield f"  bfloat16, batch {batch}", "  ".join([*_speed(value), share, _mib(value["peak_mib"])])


def _candidate(value: Mapping[str, Any]) -> str:
    seconds, rate = f"{value['seconds']:.3g} s".ljust(8), _rate(value["gflops_per_second"]).rjust(14)
    share = f"{value['share_of_ceiling']:.0%}".rjust(4)
    return f"{seconds}  {value['ratio']:.2f} x reference  {rate}  {share} of the convolution  {_mib(value['peak_mib'])}"


def _speed(value: Mapping[str, Any]) -> list[str]:
    return [f"{value['seconds']:.3g} s", f"{value['images_per_second']:.3g} images/s of each domain"]


def _configured_step(step: Mapping[str, Any]) -> Rows:
    batch = f"{step['batch_size']}" + (f" x {step['accumulation']}" if step["accumulation"] > 1 else "")
    compiled = ", compiled" if step["compiled"] else ""
    how = f"{step['precision']}{compiled} on {step['device']}"
    yield "configured step", f"{step['method']}, {step['crop_size']} pixels, batch {batch}, {how}"
    length = "" if step["hours"] is None else f"; {_hours(step['hours'])} for {step['steps']} steps"
    yield "", "; ".join([*_speed(step), _mib(step["peak_mib"])]) + length


def _loader(loader: Mapping[str, Any]) -> Rows:
    times = f"{loader['times_what_the_step_consumes']:,.0f} times what the fastest step consumes"
    yield "loader, on one core", f"{loader['decoding']:.4g} images/s, decoding and resizing every time"
    yield "", f"{loader['cached']:.4g} images/s cached; {times}"
    yield "", f"{loader['augmented']:.4g} images/s cached and augmented"
    grown = [f"{_mib(mib)} with {count} images" for count, mib in loader["memory_mib"].items()]
    yield "loader's own memory", ", ".join(grown)


def _translate(translate: Mapping[str, Any]) -> Rows:
    shape = f"{translate['images']} of {translate['size']} pixels, {translate['precision']}"
    ours, bare = translate["images_per_second"], translate["network_images_per_second"]
    yield (
        "translate a folder",
        f"{ours:.3g} images/s, {ours / bare:.0%} of the bare network's {bare:.3g} ({shape})",
    )


def _start(start: Mapping[str, Any]) -> Rows:
    first, help_ = start["first_step_seconds"], start["help_seconds"]
    yield "start", f"first step on the CPU {_seconds(first)}; --help {_seconds(help_)}"


def _load(load: float | None) -> str:
    return "" if load is None else f"; load {load:.1f} before"


def _rate(gflops: float) -> str:
    return f"{gflops:.0f} GFLOP/s" if gflops < 10_000 else f"{gflops / 1000:.1f} TFLOP/s"


def _mib(mib: float | None) -> str:
    return f"memory {_MISSING}" if mib is None else f"{mib:.0f} MiB"


def _hours(hours: float) -> str:
    return f"{60 * hours:.2g} min" if hours < 1.5 else f"{hours:.3g} h"


def _seconds(seconds: float | None) -> str:
    return _MISSING if seconds is None else f"{seconds:.2g} s"


_SECTIONS = {
    "machine": _machine,
    "ceiling": _ceiling,
    "cyclegan_step": _cyclegan_step,
    "configured_step": _configured_step,
    "loader": _loader,
    "translate": _translate,
    "start": _start,
}
