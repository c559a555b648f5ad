"""Names in files that the first version wrote, replaced by today's. The only place where the old names live on."""

from typing import Any


def upgrade_checkpoint(payload: dict[str, Any]) -> None:
    """Gives an old checkpoint today's names, in place."""
    settings, best = payload["settings"], payload.get("notes", {}).get("best")
    _rename(settings.get("evaluation"), "pictures", "images")
    method = settings.get("method")
    if isinstance(method, dict):
        _upgrade_network(method.get("generator"))
    for translation in payload["translations"].values():
        _upgrade_network(translation.get("network"))
    for state in payload["state"].values():  # of replay buffers
        _rename(state, "pictures", "images")
    if isinstance(best, dict) and isinstance(best.get("by"), str):
        best["by"] = best["by"].replace("pictures", "images")


def upgrade_description(description: Any) -> None:
    """Gives the description in an old exported generator today's names, in place."""
    _rename(description, "picture_range", "image_range")
    if isinstance(description, dict):
        _upgrade_network(description.get("network"))


def _upgrade_network(spec: Any) -> None:
    if isinstance(spec, dict) and spec.get("start_from") == "picture":
        spec["start_from"] = "image"


def _rename(section: Any, old: str, new: str) -> None:
    if isinstance(section, dict) and old in section:
        section[new] = section.pop(old)
