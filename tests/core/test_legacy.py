"""Files of the first version: their old names are converted to the current ones."""

from gan_nst.core.legacy import upgrade_checkpoint, upgrade_description


def network(start):
    return {"name": "resnet", "width": 4, "start_from": start}


def checkpoint(start, images, best):
    return {
        "settings": {
            "evaluation": {images: 100},
            "method": {"name": "cyclegan", "generator": network(start)},
        },
        "translations": {"ab": {"generator": "ab", "network": network(start)}},
        "state": {"generators.ab.weight": 1.0, "replays.a._extra_state": {images: [1], "random": 2}},
        "notes": {"best": {"step": 3, "by": best}},
    }


def test_a_checkpoint_gets_current_names():
    old, new = (
        checkpoint("picture", "pictures", "60, 60 pictures"),
        checkpoint("image", "images", "60, 60 images"),
    )
    upgrade_checkpoint(old)
    assert old == new
    upgrade_checkpoint(new)
    assert old == new


def test_missing_parts_of_a_checkpoint_are_ignored():
    payload = {"settings": {}, "translations": {"ab": {}}, "state": {}}
    upgrade_checkpoint(payload)
    assert payload == {"settings": {}, "translations": {"ab": {}}, "state": {}}


def test_an_exported_generator_gets_current_names():
    description = {"network": network("picture"), "picture_range": [-1, 1], "method": "cyclegan"}
    upgrade_description(description)
    assert description == {"network": network("image"), "image_range": [-1, 1], "method": "cyclegan"}
    for invalid in (None, [], {"network": 3}):
        upgrade_description(invalid)
