from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.presets import load_preset, override_parameters, preset_names

PROMISED = {
    "gopher@paper", "gopher@datatrove", "gopher_repetition@paper", "gopher_repetition@datatrove", "c4@t5",
    "c4@datatrove", "c4@fineweb", "fineweb@paper", "fineweb@code", "fineweb2@code", "dclm", "refinedweb", "ccnet",
    "ccnet@head", "ccnet@middle", "starcoder",
}  # fmt: skip


def test_every_packaged_preset_loads_and_states_its_source() -> None:
    assert set(preset_names()) == PROMISED
    for name in preset_names():
        preset = load_preset(name)
        assert preset.name == name
        assert any(word in preset.source for word in ("arXiv:", "github.com/", "datatrove 0.10"))
        assert preset.note
        assert all(rule.name.startswith(preset.family) for rule in preset.rules)


def test_what_papers_state_and_code_does_differs_where_it_should() -> None:
    """The values of the papers, written down a second time."""
    gopher = load_preset("gopher@paper").parameters
    assert list(gopher.values()) == [50, 100000, 3, 10, 0.1, 0.9, 0.3, 0.8, 2]
    for preset in (load_preset("gopher_repetition@paper"), load_preset("dclm"), load_preset("refinedweb")):
        grams = [preset.parameters[f"top_{n}_gram"] for n in (2, 3, 4)]
        assert [*grams, *(preset.parameters[f"dup_{n}_gram"] for n in range(5, 11))] == [
            0.2, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.1,
        ]  # fmt: skip
    paper, code = load_preset("fineweb@paper"), load_preset("fineweb@code")
    assert (paper.parameters["char_duplicates_ratio"], code.parameters["char_duplicates_ratio"]) == (0.1, 0.01)
    assert "new_line_ratio" not in paper.parameters
    assert load_preset("c4@t5").parameters["min_sentences"] == 3
    assert load_preset("ccnet").parameters == {"min_len": 300, "lang_threshold": 0.5}


def test_fineweb_2_has_numbers_for_every_language_of_the_sample() -> None:
    parameters = load_preset("fineweb2@code").parameters
    for language in ("de", "es", "fr", "hi", "it", "ko", "pl", "pt", "ru", "tr", "vi"):
        assert all(isinstance(value, dict) and value[language] is not None for value in parameters.values()), language
    for language in ("ja", "zh"):  # words are not found by white space there
        judged = {name for name, value in parameters.items() if isinstance(value, dict) and language in value}
        assert judged == {
            "dup_line_frac", "line_punct_thr", "char_duplicates_ratio", "max_bullet_lines",
            "max_ellipsis_lines",
        }  # fmt: skip
    german = {name: value["de"] for name, value in parameters.items() if isinstance(value, dict)}
    assert (german["top_2_gram"], german["max_mean_word_length"], german["new_line_ratio"]) == (0.169, 15, 0.152)
    assert not any("en" in value for value in parameters.values() if isinstance(value, dict))


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
        loaded = load_preset(preset)
        called = {name: alias for alias, name in loaded.aliases.items()}
        for key, value in loaded.parameters.items():
            assert theirs[called.get(key, key)] == value, key
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
        ({"sorce": "me"}, r"preset\.yaml:5:1: unknown key 'sorce' in a preset; did you mean 'source'"),
        ({"source": None}, "a preset needs the key 'source'"),
        ({"rules": "[]"}, "'rules' is a list with at least one rule"),
        ({"rules": "[{name: x_a, drop: n > a, why: x}]"}, "unknown key 'why' in a rule"),
        ({"rules": "[{name: x_a, drop: n > a}, {name: x_b}]"}, "a rule needs the key 'drop'"),
        ({"rules": "[{name: x_a, drop: 'n >> a'}]"}, r"preset\.yaml:4:28: rule 'x_a': predicate 'n >> a'"),
        ({"parameters": "{a: 1, b: 2}"}, r"preset\.yaml:3:20: no rule uses the parameter 'b'"),
        ({"parameters": "{a: many}"}, "parameter 'a' is 'many'; expected a number or null"),
        ({"parameters": "{a: true}"}, "parameter 'a' is True; expected a number or null"),
        ({"parameters": "[1]"}, "'parameters' is a mapping"),
        (
            {"parameters": "{a: {de: 1, fr: many}}"},
            r"preset\.yaml:3:29: parameter 'a.fr' is 'many'; expected a number or null",
        ),
        ({"parameters": "{a: {1: 2}}"}, "parameter 'a' is a mapping of names to values"),
        ({"rules": "[{name: x_a, drop: n > a}, {name: x_a, drop: n < a}]"}, "two rules are called 'x_a'"),
        ({"rules": "[{name: x_a, drop: quality_n + a}]"}, "rule 'x_a': predicate 'quality_n . a' is Float64"),
        ({"rules": "[{name: x_a, drop: n > a and len(n) > 3}]"}, r"preset\.yaml:4:37: rule 'x_a': .* at 'len\(n\)'"),
        ({"aliases": "{b: c}"}, r"preset\.yaml:5:14: alias of no parameter 'c'"),
        ({"aliases": "{a: a}"}, r"preset\.yaml:5:11: alias 'a' is a parameter already"),
        ({"aliases": "[a]"}, "'aliases' is a mapping"),
        ({"name": "[unclosed"}, r"preset\.yaml:2:7: expected ',' or '\]'"),
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
    for name in ("c4.min_sentences", "c4.min_num_sentences"):
        changed = override_parameters(presets, {name: 3})
        assert changed[0] == presets[0]
        assert changed[1].parameters == {"min_sentences": 3}
    with pytest.raises(ConfigError, match=r"did you mean 'c4\.min_sentences'"):
        override_parameters(presets, {"c4.min_sentence": 3})
    with pytest.raises(ConfigError, match="are the same parameter of c4@datatrove"):
        override_parameters(presets, {"c4.min_num_sentences": 3, "c4.min_sentences": 4})


def test_a_gopher_threshold_has_one_name_in_all_gopher_presets() -> None:
    quality = ("gopher@paper", "gopher@datatrove", "dclm", "refinedweb")
    repetition = ("gopher_repetition@paper", "gopher_repetition@datatrove", "dclm", "refinedweb")
    for names, needed in ((quality, "gopher@paper"), (repetition, "gopher_repetition@paper")):
        wanted = set(load_preset(needed).parameters)
        for name in names:
            assert wanted <= set(load_preset(name).parameters), name
    theirs = load_preset("gopher@datatrove")
    assert set(theirs.aliases.values()) == set(theirs.parameters) - {"min_stop_words"}
    assert load_preset("fineweb2@code").aliases == theirs.aliases


def test_overrides_of_one_language(tmp_path: Path) -> None:
    preset = load_preset("fineweb2@code")
    (changed,) = override_parameters((preset,), {"fineweb2.top_2_gram.de": 0.5, "fineweb2.dup_line_frac": None})
    grams = changed.parameters["top_2_gram"]
    assert isinstance(grams, dict) and (grams["de"], grams["fr"]) == (0.5, 0.161)
    assert changed.parameters["dup_line_frac"] is None
    assert changed.parameters["top_3_gram"] == preset.parameters["top_3_gram"]
    with pytest.raises(ConfigError, match=r"unknown parameter 'gopher\.min_words\.de'"):
        override_parameters((load_preset("gopher@datatrove"),), {"gopher.min_words.de": 3})
    with pytest.raises(ConfigError, match=r"did you mean 'fineweb2\.top_2_gram'"):
        override_parameters((preset,), {"fineweb2.top_2_grams": 3})
