"""pyproject.toml, requirements.lock and environment.yml describe one environment."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OPTIONAL = {"dreamsim"}  # extras of pyproject.toml that are neither locked nor in environment.yml


def pins(lines: list[str]) -> dict[str, str]:
    """Version by canonical name of lines `name==version`; anything else is an error."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        specifiers = list(requirement.specifier)
        assert [s.operator for s in specifiers] == ["=="], f"not pinned to one version: {line}"
        name = canonicalize_name(requirement.name)
        assert name not in found, f"twice: {line}"
        found[name] = specifiers[0].version
    return found


def disagreements(direct: list[Requirement], lock: dict[str, str], conda: dict[str, str]) -> list[str]:
    """What is wrong between the direct requirements, the lock and environment.yml's pins."""
    wrong = []
    names = {canonicalize_name(r.name) for r in direct}
    for requirement in direct:
        version = lock.get(canonicalize_name(requirement.name))
        if version is None:
            wrong.append(f"{requirement} is not in the lock")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version} in the lock, {requirement.specifier} in pyproject")
    wrong += [f"{name} is not in environment.yml" for name in sorted(names - conda.keys())]
    wrong += [f"{name} is in environment.yml only" for name in sorted(conda.keys() - names)]
    for name in sorted(conda.keys() & lock.keys()):
        if conda[name] != lock[name]:
            wrong.append(f"{name} is {conda[name]} in environment.yml, {lock[name]} in the lock")
    return wrong


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct_requirements() -> list[Requirement]:
    extras = project()["optional-dependencies"]
    lines = project()["dependencies"] + [r for e in extras if e not in OPTIONAL for r in extras[e]]
    return [Requirement(line) for line in lines]


def lock_pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if line and not line.startswith("#")])


def conda_entries() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def conda_pip_lines() -> list[str]:
    return next(entry["pip"] for entry in conda_entries() if isinstance(entry, dict))


def test_the_three_files_agree():
    conda = pins([line for line in conda_pip_lines() if not line.startswith("-")])
    assert disagreements(direct_requirements(), lock_pins(), conda) == []


def test_environment_yml_constrains_the_rest_by_the_lock():
    assert [line for line in conda_pip_lines() if line.startswith("-")] == ["--constraint requirements.lock"]


def test_environment_yml_has_a_python_the_project_accepts():
    plain = [entry for entry in conda_entries() if isinstance(entry, str)]
    assert sorted(entry.partition("=")[0] for entry in plain) == ["pip", "python"]
    version = next(entry.partition("=")[2] for entry in plain if entry.startswith("python="))
    assert SpecifierSet(project()["requires-python"]).contains(version)


def test_lock_leaves_out_what_only_cuda_needs():
    assert not [name for name in lock_pins() if name.startswith(("nvidia-", "cuda-", "triton", "prunelens"))]


@pytest.mark.parametrize(
    ("lock", "conda", "message"),
    [
        ({"b": "1.0"}, {"a": "1.0"}, "a>=1 is not in the lock"),
        ({"a": "0.9"}, {"a": "0.9"}, "a is 0.9 in the lock, >=1 in pyproject"),
        ({"a": "1.0"}, {}, "a is not in environment.yml"),
        ({"a": "1.0"}, {"a": "1.0", "b": "1.0"}, "b is in environment.yml only"),
        ({"a": "1.0"}, {"a": "1.1"}, "a is 1.1 in environment.yml, 1.0 in the lock"),
    ],
)
def test_each_disagreement_is_found(lock, conda, message):
    assert disagreements([Requirement("a>=1")], lock, conda) == [message]
