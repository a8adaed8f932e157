"""Pipeline files: what is read, and where exactly each mistake is reported."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataeng.config import Pipeline, load_pipeline
from dataeng.errors import ConfigError

SOURCES = "sources:\n  - read_warc: {paths: ['*.warc.gz']}\n"

OWN_STAGES = '''\
from typing import Any, ClassVar

from pydantic import BaseModel

from dataeng.stage import RowStage, Source


class Part(BaseModel, extra="forbid"):
    size: int


class Shout(RowStage):
    """Takes every kind of option."""

    languages: list[str] = []
    limits: dict[str, float] = {}
    parts: list[Part] = []
    level: int = 1
    share: float = 0.5
    strict: bool = False
    seed: int = 7
    note: str | None = None
    anything: Any = None

    def apply(self, batch):
        return batch


class Nothing(Source):
    def files(self, base):
        return []

    def read(self, file):
        return iter(())


class Unfinished(RowStage):
    pass


NotAStage = 5
'''

OWN = "sources:\n  - own:Nothing\n"


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Writes a pipeline file called p.yaml and loads it, with own code beside it."""
    before = list(sys.path)
    sys.modules.pop("own", None)
    (tmp_path / "own.py").write_text(OWN_STAGES)

    def read(text: str | bytes, *overrides: str, allow_code: bool = True) -> Pipeline:
        path = tmp_path / "p.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_pipeline(path, list(overrides), allow_code)

    yield read
    sys.path[:] = before
    sys.modules.pop("own", None)


def message(load: Callable[..., Pipeline], *args: str | bytes, allow_code: bool = True) -> str:
    """Returns the error of a load, from the file's name on."""
    with pytest.raises(ConfigError) as caught:
        load(*args, allow_code=allow_code)
    text = str(caught.value)
    return text[text.index("p.yaml") :] if "p.yaml" in text else text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nmae: x\n" + SOURCES, "p.yaml:1:1: unknown key 'nmae'; did you mean 'name'?"),
        (SOURCES + "stage:\n  - extract_text\n", "p.yaml:3:1: unknown key 'stage'; did you mean 'stages'?"),
        ("1: x\n" + SOURCES, "p.yaml:1:1: unknown key '1'; known: "),
        (
            SOURCES + "stages:\n  - extract_txt\n",
            "p.yaml:4:5: unknown stage 'extract_txt'; did you mean 'extract_text'?",
        ),
        (SOURCES + "stages:\n  - extract_txt: {}\n", "p.yaml:4:5: unknown stage 'extract_txt'; did you mean"),
        (SOURCES + "stages:\n  - zzz\n", "p.yaml:4:5: unknown stage 'zzz'; known: "),
        ("sources:\n  - read_wark: {paths: [a]}\n", "p.yaml:2:5: unknown stage 'read_wark'; did you mean 'read_warc'?"),
        (
            "sources:\n  - read_warc: {pahts: [a]}\n",
            "p.yaml:2:17: 'read_warc' has no option 'pahts'; did you mean 'paths'?",
        ),
        (
            OWN + "stages:\n  - own:Shout:\n      level: 1\n      leval: 2\n",
            "p.yaml:6:7: 'own:Shout' has no option 'leval'; did",
        ),
        (
            OWN + "stages:\n  - own:Shout:\n      level: many\n",
            "p.yaml:5:14: own:Shout.level: Input should be a valid integer",
        ),
        (OWN + "stages:\n  - own:Shout: {share: x}\n", "p.yaml:4:24: own:Shout.share: Input should be a valid number"),
        (
            OWN + "stages:\n  - own:Shout:\n      languages: en\n",
            "p.yaml:5:18: own:Shout.languages: Input should be a valid list",
        ),
        (
            OWN + "stages:\n  - own:Shout:\n      limits: {a: x}\n",
            "p.yaml:5:19: own:Shout.limits.a: Input should be a valid number",
        ),
        (
            OWN + "stages:\n  - own:Shout:\n      parts:\n        - size: 1\n        - size: big\n",
            "p.yaml:7:17: own:Shout.parts.1.size: ",
        ),
        (
            OWN + "stages:\n  - own:Shout:\n      parts:\n        - sise: 1\n",
            "p.yaml:6:11: own:Shout.parts.0.sise: there is no such",
        ),
        (
            OWN + "stages:\n  - own:Shout:\n      parts:\n        - {}\n",
            "p.yaml:6:11: own:Shout.parts.0.size: Field required",
        ),
        ("sources:\n  - read_warc\n", "p.yaml:2:5: read_warc.paths: Field required"),
        ("name: a\nname: b\n" + SOURCES, 'p.yaml:2:1: found duplicate key "name"'),
        (OWN + "stages:\n  - own:Shout: {level: 1, level: 2}\n", "p.yaml:4:27: found duplicate key"),
        ("sources: [\n", "p.yaml:2:1: expected the node content"),
        ("name: a: b\n", "p.yaml:1:8: mapping values are not allowed here"),
        ("name: x\n\tseed: 1\n", "p.yaml:2:1: found character '\\t' that cannot start any token"),
        ("name: 'x\n", "p.yaml:2:1: found unexpected end of stream"),
        ("name: x\nrun: \x07\n", "p.yaml:2: unacceptable character #x0007"),
        ("name: x\n--- \nname: y\n", "p.yaml:2:1: but found another document"),
        (SOURCES + "stages:\n  - extract_text: {<<: *nowhere}\n", "p.yaml:4:24: found undefined alias 'nowhere'"),
        (b"name: x\nrun: caf\xe9\n", "p.yaml:2: not UTF-8: byte 16 of the file is invalid"),
        ("", "p.yaml:1:1: a pipeline is a mapping with the keys name, "),
        ("# only a comment\n", "p.yaml:1:1: a pipeline is a mapping"),
        ("- a\n- b\n", "p.yaml:1:1: a pipeline is a mapping"),
        ("just text\n", "p.yaml:1:1: a pipeline is a mapping"),
        (SOURCES + "stages: {extract_text: {}}\n", "p.yaml:3:1: 'stages' is a list of stages"),
        ("sources: read_warc\n", "p.yaml:1:1: 'sources' is a list of stages"),
        ("name: x\n", "p.yaml:1:1: a pipeline needs at least one entry under 'sources'"),
        ("sources: []\n", "p.yaml:1:1: a pipeline needs at least one entry under 'sources'"),
        (
            SOURCES + "stages:\n  - extract_text: [1]\n",
            "p.yaml:4:19: 'extract_text' takes a mapping of its options, found [1]",
        ),
        (SOURCES + "stages:\n  - 5\n", "p.yaml:4:5: expected a stage, found 5"),
        (SOURCES + "stages:\n  -\n", "p.yaml:4:4: expected a stage, found None"),
        (
            SOURCES + "stages:\n  - extract_text: {}\n    deduplicate_exact: {}\n",
            "p.yaml:4:5: a list item names exactly one stage",
        ),
        (SOURCES + "stages:\n  - where: url == 'x'\n", "p.yaml:4:5: a list item names exactly one stage"),
        (SOURCES + "stages:\n  - read_warc: {paths: [a]}\n", "p.yaml:4:5: 'read_warc' belongs under 'sources'"),
        ("sources:\n  - extract_text\n", "p.yaml:2:5: 'extract_text' belongs under 'stages'"),
        (
            SOURCES + "stages:\n  - deduplicate_exact:\n    where: url == 'x'\n",
            "p.yaml:5:5: 'where' works on stages that look at one",
        ),
        ("sources:\n  - own:Nothing:\n    where: url == 'x'\n", "p.yaml:3:5: 'where' works on stages"),
        (SOURCES + "stages:\n  - extract_text:\n    where: true\n", "p.yaml:5:12: 'where' is a predicate over columns"),
        (
            SOURCES + "stages:\n  - extract_text:\n    name: Über uns\n",
            "p.yaml:5:11: name 'Über uns' must match [a-z0-9]",
        ),
        (SOURCES + "stages:\n  - extract_text:\n    name: ../../etc\n", "p.yaml:5:11: name '../../etc' must match"),
        (SOURCES + "name: ../up\n", "p.yaml:3:7: name '../up' must match"),
        (SOURCES + "seed: zero\n", "p.yaml:3:7: 'seed' is a int, found 'zero'"),
        (SOURCES + "seed: true\n", "p.yaml:3:7: 'seed' is a int, found True"),
        (SOURCES + "seed: &s true\n", "p.yaml:3:7: 'seed' is a int, found True"),
        (SOURCES + "name: 12\n", "p.yaml:3:7: 'name' is a str, found 12"),
        (SOURCES + "keep_rejected_text: yes\n", "p.yaml:3:21: 'keep_rejected_text' is a bool, found 'yes'"),
        (SOURCES + "max_error_share: -0.1\n", "p.yaml:3:18: 'max_error_share' is -0.1, expected a share from 0 to 1"),
        (SOURCES + "max_error_share: .nan\n", "p.yaml:3:18: 'max_error_share' is nan, expected a share"),
        (OWN + "stages:\n  - own:Shuot\n", "p.yaml:4:5: cannot import stage 'own:Shuot'"),
        (
            OWN + "stages:\n  - nowhere_at_all:X\n",
            "p.yaml:4:5: cannot import stage 'nowhere_at_all:X': ModuleNotFoundError",
        ),
        (OWN + "stages:\n  - :X\n", "p.yaml:4:5: cannot import stage ':X'"),
        (OWN + "stages:\n  - own:NotAStage\n", "p.yaml:4:5: 'own:NotAStage' is not a subclass of dataeng.stage.Stage"),
        (OWN + "stages:\n  - own:Unfinished\n", "p.yaml:4:5: 'own:Unfinished' is abstract"),
    ],
)
def test_mistakes_are_reported_with_their_place(
    load: Callable[..., Pipeline], text: str | bytes, expected: str
) -> None:
    found = message(load, text)
    assert found.startswith(expected), found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read pipeline file .*: No such file or directory"):
        load_pipeline(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_pipeline(tmp_path)


def test_code_that_breaks_on_import_is_an_error_of_the_file(load: Callable[..., Pipeline], tmp_path: Path) -> None:
    (tmp_path / "breaks_on_import.py").write_text("1 / 0\n")
    found = message(load, OWN + "stages:\n  - breaks_on_import:X\n")
    assert found.startswith("p.yaml:4:5: cannot import stage 'breaks_on_import:X': ZeroDivisionError")


def test_code_outside_needs_permission(load: Callable[..., Pipeline]) -> None:
    path = list(sys.path)
    found = message(load, OWN + "stages:\n  - own:Shout\n", allow_code=False)
    assert found.startswith("p.yaml:2:5: 'own:Nothing' is code outside dataeng; add --allow-code")
    assert "own" not in sys.modules and sys.path == path
    pipeline = load(OWN + "stages:\n  - own:Shout\n")
    assert type(pipeline.steps[0].stage).__name__ == "Shout" and pipeline.steps[0].name == "shout"
    assert pipeline.uses_own_code == ["own:Nothing", "own:Shout"]


def nested(levels: int) -> str:
    """An alias bomb: 9**levels values in a few lines."""
    lines = ["- &k0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"- &k{level} [{','.join([f'*k{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "sources:\n" + textwrap.indent("\n".join(lines), "  ") + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "seed: &a [x,x,x,x,x,x,x,x,x]\nname: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nrun: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "description: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nmax_error_share: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
        "stages: [&f [*e,*e,*e,*e,*e,*e,*e,*e,*e]]\nsources:\n  - read_warc: {paths: [*f,*f,*f,*f,*f,*f]}\n",
        "seed: &a [x,x,x,x,x,x,x,x,x]\nname: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nrun: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "description: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nmax_error_share: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n" + SOURCES,
        nested(9),
        OWN + "stages:\n  - own:Shout: {anything: " + "[" * 600 + "]" * 600 + "}\n",
        "[" * 600,
        "name: " + "x" * (1 << 20),
    ],
    ids=["bomb in options", "bomb in scalars", "bomb in a list", "deep list", "deep file", "large"],
)
def test_hostile_files_are_refused_quickly_and_briefly(load: Callable[..., Pipeline], text: str) -> None:
    start = time.perf_counter()
    found = message(load, text)
    assert time.perf_counter() - start < 10 and len(found) < 500, found


def options(pipeline: Pipeline, index: int = 0) -> dict[str, object]:
    return pipeline.steps[index].stage.model_dump()


def test_yaml_is_1_2_so_no_is_norwegian(load: Callable[..., Pipeline]) -> None:
    text = OWN + "stages:\n  - own:Shout: {languages: [no, en, on, y, NO, Yes], note: off, strict: true}\n"
    found = options(load(text))
    assert found["languages"] == ["no", "en", "on", "y", "NO", "Yes"] and found["note"] == "off"
    assert found["strict"] is True


def test_values_arrive_as_plain_python(load: Callable[..., Pipeline]) -> None:
    anything = '{a: 0x1F, b: 1e3, c: &t true, d: *t, e: "x", f: "two\\nlines", g: [~, 1000, 0o17, .inf]}'
    text = OWN + "stages:\n  - own:Shout:\n      anything: " + anything + "\n"
    value = options(load(text))["anything"]
    assert value == {"a": 31, "b": 1000.0, "c": True, "d": True, "e": "x", "f": "two\nlines",
                     "g": [None, 1000, 15, float("inf")]}  # fmt: skip
    kinds = [type(item) for item in [*value.values(), *value["g"]]]  # type: ignore[attr-defined,index]
    assert kinds == [int, float, bool, bool, str, str, list, type(None), int, int, float]


def test_the_seed_goes_to_stages_that_want_one_and_set_none(load: Callable[..., Pipeline]) -> None:
    stages = "stages:\n  - own:Shout\n  - own:Shout: {seed: 3}\n"
    assert [options(load("seed: 11\n" + OWN + stages), i)["seed"] for i in range(2)] == [11, 3]
    assert [options(load(OWN + stages), i)["seed"] for i in range(2)] == [7, 3]
    assert [options(load("seed:\n" + OWN + stages), i)["seed"] for i in range(2)] == [7, 3]
    assert options(load(OWN + stages, "seed=5"))["seed"] == 5


def test_names_are_unique_over_sources_and_stages(load: Callable[..., Pipeline]) -> None:
    text = "sources:\n  - own:Nothing\n  - own:Nothing\nstages:\n  - own:Shout\n  - own:Shout:\n    name: loud\n"
    text += "  - own:Shout\n  - own:Shout:\n    name: nothing\n  - own:Shout:\n    name: shout_2\n"
    pipeline = load(text)
    names = [step.name for step in (*pipeline.sources, *pipeline.steps)]
    assert names == ["nothing", "nothing_2", "shout", "loud", "shout_2", "nothing_3", "shout_2_2"]


def test_defaults(load: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = load(SOURCES)
    assert (pipeline.name, pipeline.seed, pipeline.steps, str(pipeline.run_dir)) == ("p", 0, (), "runs/p")
    assert pipeline.base == tmp_path.resolve() and pipeline.max_error_share == 0.05 and pipeline.keep_rejected_text
    full = load("name: a\nrun: elsewhere\nseed: 2\nmax_error_share: 0\nkeep_rejected_text: false\n" + SOURCES)
    assert (full.name, str(full.run_dir), full.seed) == ("a", "elsewhere", 2)
    assert full.max_error_share == 0 and full.keep_rejected_text is False


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("shout.level=3", "level", 3),
        ("shout.languages=[no, de]", "languages", ["no", "de"]),
        ("shout.limits={a: 1, b: .5}", "limits", {"a": 1.0, "b": 0.5}),
        ("shout.limits.a=2", "limits", {"z": 0.0, "a": 2.0}),
        ("shout.limits.gopher.min_words=20", "limits", {"z": 0.0, "gopher.min_words": 20.0}),
        ("shout.note=a=b", "note", "a=b"),
        ("shout.note=no", "note", "no"),
        ("shout.note=null", "note", None),
        ("shout.note=", "note", ""),
        ("shout.strict=true", "strict", True),
    ],
)
def test_overrides_of_options(load: Callable[..., Pipeline], override: str, field: str, expected: object) -> None:
    text = OWN + "stages:\n  - own:Shout: {limits: {z: 0}, note: old}\n  - own:Shout\n"
    pipeline = load(text, override)
    assert options(pipeline)[field] == expected
    assert options(pipeline, 1) == options(load(text), 1)


def test_overrides_of_keys_and_where(load: Callable[..., Pipeline]) -> None:
    text = OWN + "stages:\n  - own:Shout\n  - own:Shout:\n    where: url == 'a'\n"
    pipeline = load(
        text, "run=elsewhere", "seed=9", "keep_rejected_text=false", "shout.where=domain == 'web'", "shout_2.where=null"
    )
    assert (str(pipeline.run_dir), pipeline.seed, pipeline.keep_rejected_text) == ("elsewhere", 9, False)
    assert [step.where for step in pipeline.steps] == ["domain == 'web'", None]


def test_the_last_override_wins(load: Callable[..., Pipeline]) -> None:
    assert options(load(OWN + "stages:\n  - own:Shout\n", "shout.level=3", "shout.level=4"))["level"] == 4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("shout.level", "--set shout.level: expected NAME=VALUE"),
        ("shuot.level=1", "--set shuot.level=1: the pipeline has no step 'shuot'; did you mean 'shout'?"),
        ("shout.levle=1", "p.yaml:4:5: 'own:Shout' has no option 'levle'; did you mean 'level'?"),
        ("shout.level=x", "p.yaml:4:5: own:Shout.level: Input should be a valid integer"),
        ("shout.level.deeper=1", "p.yaml:4:5: own:Shout.level: Input should be a valid integer"),
        ("shout.languages.x=1", "--set shout.languages.x=1: 'shout.languages' is not a mapping"),
        ("sed=1", "--set sed=1: no key 'sed'; did you mean 'seed'?"),
        ("stages=[]", "--set stages=[]: no key 'stages'"),
        ("=1", "--set =1: no key ''"),
        ("seed=[1", "--set seed=[1: '[1' is not a YAML value"),
        ("seed=x", "p.yaml: 'seed' is a int, found 'x'"),
        ("name=../up", "p.yaml: name '../up' must match"),
        ("shout.where=5", "--set shout.where=5: expected a predicate"),
        ("shout.where=", "--set shout.where=: expected a predicate"),
        ("nothing.where=url == 'x'", "p.yaml: 'where' works on stages"),
    ],
)
def test_wrong_overrides(load: Callable[..., Pipeline], override: str, expected: str) -> None:
    found = message(load, OWN + "stages:\n  - own:Shout: {languages: [en]}\n", override)
    assert found.startswith(expected), found
