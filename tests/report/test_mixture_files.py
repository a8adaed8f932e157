"""Files of weights and schedules: every form, and every mistake with its place."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.formats.mixture import Policy
from dataeng.mixture.weighting import WantedStage
from dataeng.report.mixture_files import read_schedule, read_weights


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.csv", "domain,weight\nweb,0.75\nno, 0.25\n"),
        ("w.json", '{"web": 0.75, "no": 0.25}'),
        ("w.yaml", "web: 0.75\nno: 0.25  # the language\n"),
    ],
)
def test_weights(tmp_path: Path, name: str, text: str) -> None:
    assert read_weights(written(tmp_path, name, text)) == {"web": 0.75, "no": 0.25}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.csv", "name,weight\nweb,1\n", r"w\.csv:1: the columns are name, weight; expected domain,weight"),
        ("w.csv", "", r"w\.csv:1: the columns are none; expected"),
        ("w.csv", "domain,weight\nweb,much\n", r"w\.csv:2: the weight of 'web' is 'much'; expected a number"),
        ("w.csv", "domain,weight\nweb\n", r"w\.csv:2: the weight of 'web' is ''"),
        ("w.csv", "domain,weight\nweb,1\nweb,2\n", r"w\.csv:3: 'web' has a weight of 1 already"),
        ("w.yaml", "web: much\n", r"w\.yaml:1:1: the weight of 'web' is 'much'; expected a number"),
        ("w.yaml", "web: yes\ncode: true\n", r"the weight of 'web' is 'yes'"),
        ("w.yaml", "- web\n", r"w\.yaml:1:1: a weights is a mapping"),
        ("w.yaml", "web: .nan\n", "the weight of 'web' is nan"),
    ],
)
def test_wrong_weights(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_weights(written(tmp_path, name, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("w.csv", "w.yaml"):
        with pytest.raises(ConfigError, match="cannot read weights file"):
            read_weights(tmp_path / name)
    (tmp_path / "w.csv").write_bytes(b"domain,weight\n\xff,1\n")
    with pytest.raises(ConfigError, match="not UTF-8: byte 14 is invalid"):
        read_weights(tmp_path / "w.csv")


STAGES = [
    {"name": "balanced", "until": "70%", "policy": "temperature", "temperature": 2, "domains": ["web", "code"]},
    {"name": "flat", "until": 0.8, "policy": "temperature", "alpha": 0},
    {"name": "unimax", "until": 0.9, "policy": "unimax", "max_epochs": 4},
    {"name": "all there is", "until": 0.95, "policy": "natural"},
    {"name": "qa", "until": 1, "weights": {"web": 0.5, "qa": 0.5}},
]


def test_a_schedule(tmp_path: Path) -> None:
    # JSON is YAML.
    assert read_schedule(written(tmp_path, "s.json", json.dumps({"stages": STAGES}))) == [
        WantedStage("balanced", 0.7, Policy(name="temperature", temperature=2), domains=("web", "code")),
        WantedStage("flat", 0.8, Policy(name="temperature", temperature=math.inf)),
        WantedStage("unimax", 0.9, Policy(name="unimax", max_epochs=4)),
        WantedStage("all there is", 0.95, Policy(name="natural")),
        WantedStage("qa", 1.0, Policy(name="given"), {"web": 0.5, "qa": 0.5}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: []\n", r"s\.yaml:1:1: unknown key 'stage'; a schedule has the key stages"),
        ("stages: []\n", "needs a list of stages"),
        ("stages: [x]\n", r"s\.yaml:1:10: a stage is a mapping with the keys name, until"),
        ("stages:\n- {name: a, untill: 1}\n", r"s\.yaml:2:13: unknown key 'untill' of a stage; did you mean 'until'"),
        ("stages:\n- {name: a, policy: natural}\n", "stage 1 has no 'until'"),
        ("stages:\n- {name: a, until: 1}\n", "stage 'a' needs either weights or a policy"),
        ("stages:\n- {name: a, until: 1, policy: natural, weights: {web: 1}}\n", "needs either weights or a policy"),
        ("stages:\n- {name: a, until: x%, policy: natural}\n", r"until is 'x%'; expected a number such as 0.7, or 70%"),
        ("stages:\n- {name: a, until: soon, policy: natural}\n", r"s\.yaml:2:13: until is 'soon'; expected a number"),
        ("stages:\n- {name: a, until: 1, policy: naturel}\n", "has the policy 'naturel'; did you mean 'natural'"),
        ("stages:\n- {name: a, until: 1, policy: natural, alpha: 1}\n", "policy 'natural' takes no 'alpha'"),
        ("stages:\n- {name: a, until: 1, policy: temperature}\n", "'temperature' needs temperature or alpha"),
        ("stages:\n- {name: a, until: 1, policy: temperature, temperature: 0}\n", "temperature is 0; expected"),
        ("stages:\n- {name: a, until: 1, policy: temperature, alpha: -1}\n", "alpha is -1; expected at least 0"),
        ("stages:\n- {name: a, until: 1, policy: unimax}\n", "policy 'unimax' needs max_epochs"),
        ("stages:\n- {name: a, until: 1, policy: natural, domains: web}\n", "domains is a list of domain names"),
        ("stages:\n- {name: a, until: 1, weights: [1]}\n", "weights of stage 'a' are no mapping"),
        ("stages:\n- {name: a, until: 1, weights: {web: true}}\n", "the weight of 'web' is True; expected a number"),
        ("stages:\n- {name: a, until: 1, weights: {web: 1}, domains: [web]}\n", "so it takes no 'domains'"),
        ("stages: [\n", r"s\.yaml:2:1: "),
    ],
)
def test_wrong_schedules(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_schedule(written(tmp_path, "s.yaml", text))
