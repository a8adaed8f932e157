"""Files that a person writes for ``dataeng mix``: weights (CSV, JSON, YAML) and schedules (YAML, JSON)."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataeng.errors import ConfigError, nearest
from dataeng.formats.mixture import Policy
from dataeng.mixture.weighting import WantedStage
from dataeng.yaml_file import YamlFile

STAGE_KEYS = ("name", "until", "weights", "policy", "domains", "temperature", "alpha", "max_epochs")
POLICIES = ("natural", "temperature", "unimax")


def read_weights(path: Path) -> dict[str, float]:
    """Reads a weight for each domain: a CSV with the columns domain and weight, or a mapping in YAML or JSON.

    Raises `ConfigError` with the place for what is no number, or is given twice.
    """
    if path.suffix == ".csv":
        return _weights_of_csv(path)
    file = YamlFile(path, "weights", ["DOMAIN: WEIGHT"])
    return {str(name): _number(file, file.root, name, f"the weight of '{name}'") for name in file.root}


def _weights_of_csv(path: Path) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            columns = [name.strip() for name in reader.fieldnames or ()]
            if columns != ["domain", "weight"]:
                raise ConfigError(f"{path}:1: the columns are {', '.join(columns) or 'none'}; expected domain,weight.")
            weights: dict[str, float] = {}
            for row in reader:
                name, text = (row["domain"] or "").strip(), (row["weight"] or "").strip()
                where = f"{path}:{reader.line_num}"
                if name in weights:
                    raise ConfigError(f"{where}: '{name}' has a weight of {weights[name]:g} already.")
                try:
                    weights[name] = float(text)
                except ValueError as error:
                    raise ConfigError(f"{where}: the weight of '{name}' is '{text}'; expected a number.") from error
    except OSError as error:
        raise ConfigError(f"cannot read weights file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: byte {error.start} is invalid.") from error
    return weights


def read_schedule(path: Path) -> list[WantedStage]:
    """Reads the stages of a schedule::

        stages:
          - name: balanced
            until: 70%              # or 0.7: progress at which the stage ends
            policy: temperature     # natural, temperature (temperature or alpha), unimax (max_epochs)
            temperature: 2
            domains: [web, code]    # the policy's; without it, all
          - name: annealing
            until: 1
            weights: {web: 0.5, books: 0.3, qa: 0.2}     # domains that are not named are not drawn

    Raises `ConfigError` with file, line and column.
    """
    file = YamlFile(path, "schedule", ["stages"])
    for key in file.root:
        if key != "stages":
            raise file.error(f"unknown key '{key}'; a schedule has the key stages.", file.root, key)
    stages = file.root.get("stages")
    if not isinstance(stages, list) or not stages:
        raise file.error("a schedule needs a list of stages.", file.root)
    return [_stage(file, stages, index) for index in range(len(stages))]


def _stage(file: YamlFile, stages: Sequence[Any], index: int) -> WantedStage:
    node = stages[index]
    if not isinstance(node, dict):
        raise file.error(f"a stage is a mapping with the keys {', '.join(STAGE_KEYS)}.", stages, index)
    for key in node:
        if key not in STAGE_KEYS:
            raise file.error(f"unknown key '{key}' of a stage{nearest(str(key), STAGE_KEYS)}", node, key)
    for key in ("name", "until"):
        if key not in node:
            raise file.error(f"stage {index + 1} has no '{key}'.", node)
    name = str(node["name"])
    if ("weights" in node) == ("policy" in node):
        raise file.error(f"stage '{name}' needs either weights or a policy.", node)
    until = _progress(file, node)
    if "weights" in node:
        for key in node:
            if key not in ("name", "until", "weights"):
                raise file.error(f"stage '{name}' gives weights, so it takes no '{key}'.", node, key)
        given = node["weights"]
        if not isinstance(given, dict) or not given:
            raise file.error(f"the weights of stage '{name}' are no mapping from domain to number.", node, "weights")
        weights = {str(domain): _number(file, given, domain, f"the weight of '{domain}'") for domain in given}
        return WantedStage(name, until, Policy(name="given"), weights)
    return WantedStage(name, until, _policy(file, node, name), domains=_domains(file, node))


def _domains(file: YamlFile, node: Any) -> tuple[str, ...] | None:
    if "domains" not in node:
        return None
    domains = node["domains"]
    if not isinstance(domains, list) or not domains:
        raise file.error("domains is a list of domain names.", node, "domains")
    return tuple(str(domain) for domain in domains)


def _policy(file: YamlFile, node: Any, stage: str) -> Policy:
    name = str(node["policy"])
    if name not in POLICIES:
        raise file.error(f"stage '{stage}' has the policy '{name}'{nearest(name, POLICIES)}", node, "policy")
    takes = {"natural": (), "temperature": ("temperature", "alpha"), "unimax": ("max_epochs",)}[name]
    for key in ("temperature", "alpha", "max_epochs"):
        if key in node and key not in takes:
            raise file.error(f"policy '{name}' takes no '{key}'.", node, key)
    given = [key for key in takes if key in node]
    if takes and len(given) != 1:
        raise file.error(f"policy '{name}' needs {' or '.join(takes)}.", node, "policy")
    if not given:
        return Policy(name="natural")
    value = _number(file, node, given[0], given[0])
    if given[0] == "alpha":
        if value < 0:
            raise file.error(f"alpha is {value:g}; expected at least 0.", node, "alpha")
        return Policy(name="temperature", temperature=1 / value if value else math.inf)
    if value <= 0:
        raise file.error(f"{given[0]} is {value:g}; expected a number above 0.", node, given[0])
    if given[0] == "temperature":
        return Policy(name="temperature", temperature=value)
    return Policy(name="unimax", max_epochs=value)


def _progress(file: YamlFile, node: Any) -> float:
    value = node["until"]
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError as error:
            raise file.error(f"until is '{value}'; expected a number such as 0.7, or 70%.", node, "until") from error
    return _number(file, node, "until", "until")


def _number(file: YamlFile, node: Any, key: Any, what: str) -> float:
    value = node[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise file.error(f"{what} is {value!r}; expected a number.", node, key)
    return float(value)
