"""Settings: a mistake is reported in one line with the setting, the given value and what was probably meant."""

import typing
from pathlib import Path

import pytest
import yaml

from gan_nst.core.errors import SettingsError, one_line
from gan_nst.core.settings import (
    Section,
    dump_yaml,
    leaf_types,
    merge,
    read_overrides,
    read_yaml,
    setting_paths,
    validate,
)
from gan_nst.methods import base
from gan_nst.runs.settings import _stack, load_settings, settings_model

MODEL = settings_model(base.find("cyclegan"))


def nested(path: str, value: object) -> dict[str, typing.Any]:
    """`{"a": {"b": value}}` for "a.b"."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


def at(settings: object, path: str) -> object:
    for key in path.split("."):
        settings = getattr(settings, key)
    return settings


def complaint(path: str, value: object) -> str:
    with pytest.raises(SettingsError) as caught:
        validate(MODEL, nested(path, value))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data.crop_sise", "data.crop_size"),
        ("sed", "seed"),
        ("method.generator.widht", "method.generator.width"),
        ("training.learning_rate", "method.learning_rate"),
        ("training.crop_size", "data.crop_size"),
        ("data.seed", "seed"),
        ("method.width", "method.generator.width"),
        ("crop_size", "data.crop_size"),
        ("dta.crop_size", None),
    ],
)
def test_an_unknown_key_is_reported_with_a_suggestion(given, meant):
    message = complaint(given, 1)
    if meant is None:  # the first unknown key is the section's
        assert message.startswith(f"{given.partition('.')[0]}: unknown setting")
    else:
        assert message == f"{given}: unknown setting; did you mean {meant}?"


def test_a_key_like_no_other_gets_no_suggestion():
    assert complaint("qqqqqq", 1) == "qqqqqq: unknown setting"


def test_an_unknown_key_is_reported_before_the_mistakes_it_causes():
    with pytest.raises(SettingsError, match=r"^data\.crop_sise: unknown setting"):
        validate(MODEL, {"seed": "many", "data": {"flip": 7, "crop_sise": 64}})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", True, "seed: expected a whole number, got true"),
        ("data.flip", False, "data.flip: expected a number, got false"),
        ("method.generator.width", True, "method.generator.width: expected a whole number, got true"),
        ("data.flip", "often", "data.flip: expected a number, got 'often'"),
        ("data.load_size", 12.5, "data.load_size: expected a whole number, got 12.5"),
        ("training.epochs", "long", "training.epochs: expected a number or null, got 'long'"),
        ("data.upscale", "perhaps", "data.upscale: expected true or false, got 'perhaps'"),
        ("data.domain", 1, "data.domain: expected text, got 1"),
        ("data.root", 1, "data.root: expected a path, got 1"),
        ("data.augmentations", 1, "data.augmentations: expected a list, got 1"),
        ("data", 1, "data: expected a group of settings, got 1"),
        ("data", None, "data: expected a group of settings, got null"),
        ("data.augmentations", [1], "data.augmentations.0: expected a group of settings, got 1"),
        ("data.workers", "many", "data.workers: expected a whole number or one of auto, got 'many'"),
        ("data.workers", 1.5, "data.workers: expected a whole number or one of auto, got 1.5"),
        ("method.betas", [0.5, "x"], "method.betas.1: expected a number, got 'x'"),
        ("method.betas", [0.5], "method.betas.1: missing"),
    ],
)
def test_a_wrong_type_is_reported_in_a_users_words(path, value, message):
    assert complaint(path, value) == message


def test_a_wrong_choice_is_reported_with_the_choices_and_the_nearest():
    assert complaint("method.adversarial", "lsgann") == (
        "method.adversarial: expected one of lsgan, bce, got 'lsgann'; did you mean lsgan?"
    )


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_must_be_finite(value):
    assert complaint("method.cycle_weight", value).startswith("method.cycle_weight: ")


def test_conflicting_settings_are_reported_with_their_path():
    assert complaint("data.crop_size", 300).startswith("data.crop_size: 300 is larger than load_size, 286")
    assert complaint("training", {"epochs": None}).startswith("training.steps: missing")
    assert complaint("data.a", "x").startswith("data: a and b go together")


@pytest.mark.parametrize("data", [[1], 3, None])
def test_anything_but_a_mapping_is_refused(data):
    with pytest.raises(SettingsError, match=r"^x: input should be"):
        validate(MODEL, data, where="x")


def test_the_source_of_a_mistake_is_named():
    with pytest.raises(SettingsError, match=r"^some\.yaml: seed: "):
        validate(MODEL, {"seed": -1}, where="some.yaml")


FLOATS = [path for path, field in setting_paths(MODEL) if float in leaf_types(field.annotation)]


def test_the_walk_finds_the_float_settings():
    assert {"data.flip", "training.ema", "training.gradient_clip", "method.learning_rate"} <= set(FLOATS)


@pytest.mark.parametrize("path", FLOATS)
def test_every_float_setting_takes_an_exponent_without_a_point(path):
    override = read_overrides(MODEL, [f"{path}=2e-4"])
    assert at(validate(MODEL, override), path) == 2e-4
    assert at(validate(MODEL, yaml.safe_load(dump_yaml(nested(path, "2e-4")))), path) == 2e-4
    assert isinstance(yaml.safe_load("2e-4"), str)  # the reason for this test


def test_float_pairs_take_an_exponent_without_a_point():
    settings = validate(MODEL, yaml.safe_load("method: {betas: [5e-1, 0.999]}"))
    assert at(settings, "method.betas") == (0.5, 0.999)


def test_no_choice_is_a_word_that_yaml_reads_as_something_else():
    def choices(annotation):
        if typing.get_origin(annotation) is typing.Literal:
            return [value for value in typing.get_args(annotation) if isinstance(value, str)]
        return [choice for part in typing.get_args(annotation) for choice in choices(part)]

    found = {path: choices(field.annotation) for path, field in setting_paths(MODEL)}
    assert "transposed" in found["method.generator.upsampling"]
    assert "auto" in found["data.workers"]
    for path, words in found.items():
        for word in words:
            assert word.lower() not in {"on", "off", "yes", "no", "y", "n", "true", "false", "null"}, path
            assert yaml.safe_load(word) == word, path


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.a=001", "001"),
        ("data.root=1e3", "1e3"),
        ("data.domain=off", "off"),
        ("data.domain=a: b #c", "a: b #c"),
        ("data.root=x=y", "x=y"),
        ("data.a=null", None),
        ("data.a=", None),
        ("data.domain=null", "null"),
        ("seed=7", 7),
        ("training.epochs=null", None),
        ("data.upscale=true", True),
        ("data.workers=auto", "auto"),
        ("method.betas=[0.5, 0.9]", [0.5, 0.9]),
        ("data.augmentations=[{name: Blur, p: 0.5}]", [{"name": "Blur", "p": 0.5}]),
    ],
)
def test_overrides_are_yaml_but_text_and_paths_are_literal(override, value):
    path = override.partition("=")[0]
    read = read_overrides(MODEL, [override])
    assert read == nested(path, value)
    assert type(at_dict(read, path)) is type(value)


def at_dict(data, path):
    for key in path.split("."):
        data = data[key]
    return data


def test_overrides_of_one_section_add_up_and_the_last_of_equals_wins():
    read = read_overrides(MODEL, ["data.flip=0.1", "seed=1", "data.crop_size=64", "data.flip=0.2"])
    assert read == {"data": {"flip": 0.2, "crop_size": 64}, "seed": 1}


@pytest.mark.parametrize("override", ["seed", "=3", "data..flip=1", ".seed=1", "data.flip=[1", "data.flip={"])
def test_a_malformed_override_is_refused_in_one_line(override):
    with pytest.raises(SettingsError) as caught:
        read_overrides(MODEL, [override])
    assert "\n" not in str(caught.value)


def test_a_section_given_a_value_cannot_also_be_given_parts():
    with pytest.raises(SettingsError, match=r"data\.flip: data was already given a value"):
        read_overrides(MODEL, ["data=3", "data.flip=1"])


def test_settings_are_frozen_and_survive_plain_data():
    settings = validate(MODEL, {"data": {"a": "001", "b": "002"}, "method": {"generator": {"width": 8}}})
    assert at(settings, "data.a") == Path("001")
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3
    plain = yaml.safe_load(dump_yaml(settings.model_dump(mode="json")))
    assert validate(MODEL, plain) == settings


def test_merge_goes_into_mappings_and_replaces_everything_else():
    base_layer = {"x": {"y": 1, "z": {"w": 1}}, "l": [1, 2, 3], "m": {"n": 1}, "k": 1}
    over = {"x": {"z": {"v": 2}}, "l": [4], "m": 5, "k": {"j": 1}}
    before = repr(base_layer)
    assert merge(base_layer, over) == {
        "x": {"y": 1, "z": {"w": 1, "v": 2}},
        "l": [4],
        "m": 5,
        "k": {"j": 1},
    }
    assert repr(base_layer) == before


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just text\n", "3\n", "1: 2\n", "true: 1\n"])
def test_a_file_without_a_mapping_is_refused(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"x\.yaml: expected settings as `name: value` lines"):
        read_yaml(path)


@pytest.mark.parametrize(
    "content", [b"a: [1\nb: 2", b"a: b: c", b"\ta: 1", b"a: \xff\xfe", b"a: !!python/name:os.x"]
)
def test_invalid_yaml_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"x\.yaml: (not valid YAML|cannot be read)") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_reported_and_an_empty_one_is_empty(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def length(*layers):
    training = validate(MODEL, _stack(layers)).training
    return training.steps, training.epochs


def test_steps_or_epochs_of_the_later_layer_win():
    steps, epochs = {"training": {"steps": 10}}, {"training": {"epochs": 3}}
    assert length({}) == (None, 200)
    assert length(steps) == (10, None)
    assert length(epochs) == (None, 3)
    assert length(steps, epochs) == (None, 3)
    assert length(epochs, steps) == (10, None)
    assert length(epochs, steps, epochs) == (None, 3)
    assert length(steps, {"training": {"ema": 0.5}}) == (10, None)
    assert length(steps, {"training": {"epochs": None}}) == (10, None)


def test_steps_and_epochs_in_one_layer_are_an_error():
    with pytest.raises(SettingsError, match=r"training\.steps=10 and training\.epochs=3: give one of them"):
        _stack([{}, {"training": {"steps": 10, "epochs": 3}}])
    with pytest.raises(SettingsError, match=r"training\.epochs='\\ud800': give one of them"):
        _stack([{}, {"training": {"steps": 10, "epochs": "\ud800"}}])


def test_layers_are_stacked_in_order_default_file_cpu_block_overrides(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "method: {name: cyclegan}\ndevice: cpu\nseed: 1\ndata: {flip: 0.1, crop_size: 64}\ntraining: {epochs: 3}\n"
        "on_cpu: {seed: 2, data: {flip: 0.2}, training: {steps: 9}}\n"
    )
    settings, device, small = load_settings(path, ["data.flip=0.3"])
    assert (settings.seed, settings.data.flip, settings.data.crop_size) == (2, 0.3, 64)
    assert (settings.training.steps, settings.training.epochs) == (9, None)
    assert device.type == "cpu"
    assert small


def test_every_setting_has_a_description():
    undescribed = [
        path
        for path, field in setting_paths(MODEL)
        if not field.description
        and not any(isinstance(t, type) and issubclass(t, Section) for t in leaf_types(field.annotation))
        and not path.endswith("name")
    ]
    assert undescribed == []


def refusal(call, *arguments):
    """Returns the message of a refusal, which must be one line of readable length."""
    with pytest.raises(SettingsError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message == one_line(message)
    assert len(message) < 1000
    return message


def refused_text(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return refusal(load_settings, path, ["device=cpu"])


def test_a_value_that_contains_itself_is_refused(tmp_path):
    assert "data: expected" in refused_text(tmp_path, "method: {name: cyclegan}\ndata: &x [*x]")


def test_anchors_may_be_used(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "x: &x {flip: 0.25}\nmethod: {name: cyclegan}\ndata: {<<: *x, load_size: &s 300, crop_size: *s}\n"
    )
    assert read_yaml(path)["data"] == {"flip": 0.25, "load_size": 300, "crop_size": 300}


@pytest.mark.parametrize("depth", [40, 1000, 20_000])
def test_deep_settings_are_refused(tmp_path, depth):
    text = "method: {name: cyclegan}\ndata: " + "[" * depth + "]" * depth
    assert ("recursion" if depth > 100 else "data: expected") in refused_text(tmp_path, text)
    refusal(read_overrides, MODEL, ["data.augmentations=" + "[" * depth])
    assert "section.key=value" in refusal(read_overrides, MODEL, [".".join("a" * depth) + "=1"])


@pytest.mark.parametrize(
    "value",
    [
        *(
            "!!timestamp x",
            "!!bool x",
            "!!int x",
            "!!float x",
            "2001-13-45",
            "0x_",
            "9" * 5000,
            "0x" + "f" * 5000,
        ),
        *(
            "!!python/object/apply:os.system ['exit']",
            "!!python/name:os.system",
            '"\\ud800"',
            "!!binary /w==",
        ),
    ],
)
def test_a_value_that_does_not_fit_its_yaml_type_is_refused(tmp_path, value):
    assert "x.yaml" in refused_text(tmp_path, f"method: {{name: cyclegan}}\nseed: {value}")


@pytest.mark.parametrize("key", ["a\nb", "\x1b[31m", "\u202e", "x" * 3000])
def test_keys_that_would_move_the_cursor_or_fill_the_screen_are_reported_in_one_line(tmp_path, key):
    assert "unknown setting" in refused_text(tmp_path, dump_yaml({"method": {"name": "cyclegan"}, key: 1}))
    assert "unknown setting" in refusal(validate, MODEL, read_overrides(MODEL, [f"{key}=1"]))
    assert "section.key=value" in refusal(read_overrides, MODEL, [key])
    refusal(validate, MODEL, {"method": {"name": key}})
    refusal(validate, MODEL, {"seed": [key] * 100})


@pytest.mark.parametrize("name", [["x" * 3000] * 100, "a\nb", {"x": 1}, 2**2000])
def test_an_invalid_method_name_is_reported_in_one_line(name):
    assert "method.name" in refusal(base.find, name)


@pytest.mark.parametrize(
    "domain", ["../x", "../../x", "..", "/tmp/x", "a/../../x", "a\nb", "\x1b[2J", "x/..", "."]
)
def test_a_domain_is_the_name_of_a_folder_below_others(domain):
    """Runs and data sets are written to folders named after it."""
    assert refusal(validate, MODEL, {"data": {"domain": domain}}).startswith("data.domain: ")


@pytest.mark.parametrize("domain", ["photo2cartoon", "a/b", "été 2024", "..x", "x.y"])
def test_a_domain_may_have_any_name(domain):
    assert validate(MODEL, {"data": {"domain": domain}}).data.domain == domain
