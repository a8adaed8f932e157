from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.presets import load_preset, override_parameters, preset_names


def test_every_packaged_preset_loads_and_states_its_source() -> None:
    assert {"gopher@datatrove", "gopher_repetition@datatrove", "c4@datatrove", "c4@fineweb", "fineweb@code"} <= set(
        preset_names()
    )
    for name in preset_names():
        preset = load_preset(name)
        assert preset.name == name
        assert "datatrove 0.10" in preset.source
        names = [rule.name for rule in preset.rules]
        assert len(set(names)) == len(names)
        assert all(rule.startswith(preset.family) for rule in names)


def test_thresholds_are_datatroves_own_defaults() -> None:
    filters = pytest.importorskip("datatrove.pipeline.filters")

    def defaults(name: str) -> dict[str, object]:
        parameters = inspect.signature(getattr(filters, name).__init__).parameters
        return {key: parameter.default for key, parameter in parameters.items()}

    for preset, name in (
        ("gopher@datatrove", "GopherQualityFilter"),
        ("c4@datatrove", "C4QualityFilter"),
        ("fineweb@code", "FineWebQualityFilter"),
    ):
        theirs = defaults(name)
        for key, value in load_preset(preset).parameters.items():
            assert theirs[key] == value, key
    theirs = defaults("GopherRepetitionFilter")
    ours = load_preset("gopher_repetition@datatrove").parameters
    for kind in ("top", "dup"):
        for n, value in theirs[f"{kind}_n_grams"]:  # type: ignore[attr-defined]
            assert ours[f"{kind}_{n}_gram"] == value
    for key in ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"):
        assert ours[key] == theirs[key]


GOOD = {"name": "x@y", "source": "me", "parameters": "{a: 1}", "rules": "[{name: x_a, drop: n > a}]"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sorce": "me"}, "unknown key 'sorce' in a preset; did you mean 'source'"),
        ({"source": None}, "a preset needs the key 'source'"),
        ({"rules": "[]"}, "'rules' is a list with at least one rule"),
        ({"rules": "[{name: x_a, drop: n > a, why: x}]"}, "unknown key 'why' in a rule"),
        ({"rules": "[{name: x_a, drop: n > a}, {name: x_b}]"}, "a rule needs the key 'drop'"),
        ({"rules": "[{name: x_a, drop: 'n >> a'}]"}, "rule 'x_a': predicate 'n >> a'"),
        ({"parameters": "{a: 1, b: 2}"}, "no rule uses the parameter 'b'"),
        ({"parameters": "{a: many}"}, "parameter 'a' is 'many'; expected a number or null"),
        ({"parameters": "{a: true}"}, "parameter 'a' is True; expected a number or null"),
        ({"parameters": "[1]"}, "'parameters' is a mapping"),
        ({"name": "[unclosed"}, "not a readable YAML file"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    path = tmp_path / "preset.yaml"
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text("".join(f"{key}: {value}\n" for key, value in content.items()))
    with pytest.raises(ConfigError, match=message):
        load_preset(str(path))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    for value in (1, 22):
        content = {**GOOD, "parameters": f"{{a: {value}}}"}
        path.write_text("".join(f"{key}: {item}\n" for key, item in content.items()))
        assert load_preset(str(path)).parameters == {"a": value}


def test_overrides_reach_the_presets_that_have_the_parameter() -> None:
    presets = (load_preset("gopher@datatrove"), load_preset("c4@datatrove"))
    changed = override_parameters(presets, {"c4.min_num_sentences": 3})
    assert changed[0] == presets[0]
    assert changed[1].parameters == {"min_num_sentences": 3}
    with pytest.raises(ConfigError, match=r"did you mean 'c4\.min_num_sentences'"):
        override_parameters(presets, {"c4.min_sentences": 3})
