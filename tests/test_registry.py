"""Parts: built-ins by name, a user's by import path."""

import sys
from pathlib import Path

import pytest

from prunelens import registry
from prunelens.registry import Description, describe


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's, importable as my_parts."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    return tmp_path / "my_parts.py"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_has_built_ins_with_labels(kind: str) -> None:
    for name in registry.built_ins(kind):
        assert registry.description(registry.find(kind, name), name).label


def test_built_in_methods_have_their_own_look() -> None:
    looks = [registry.find("method", name).description for name in registry.built_ins("method")]
    assert len({look.label for look in looks}) == len({look.color for look in looks}) == len(looks)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"^method structured_11: unknown, did you mean structured_l1\?"):
        registry.find("method", "structured_11")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "AttributeError: module 'my_parts' has no attribute 'thing'"),
        ("thing = 3", "found a int, expected a function or a class"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def thing(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_module_is_told_in_one_line(mine: Path, source: str, message: str) -> None:
    mine.write_text(source)
    with pytest.raises(ValueError, match=message) as error:
        registry.find("measure", "my_parts.thing")
    assert str(error.value).startswith("measure my_parts.thing: ") and "\n" not in str(error.value)


def test_a_part_without_a_description_is_labelled_by_its_name(mine: Path) -> None:
    mine.write_text("def fire_rate(recording, layer): ...")
    part = registry.find("measure", "my_parts.fire_rate")
    assert registry.description(part, "my_parts.fire_rate").label == "fire rate"


def test_the_source_hash_is_that_of_the_whole_file(mine: Path) -> None:
    mine.write_text("def helper(): return 1\ndef thing(): return helper()\n")
    before = registry.source_hash("method", "my_parts.thing")
    mine.write_text("def helper(): return 2\ndef thing(): return helper()\n")
    assert registry.source_hash("method", "my_parts.thing") != before
    assert "my_parts" not in sys.modules, "hashing imports nothing"
    with pytest.raises(ValueError, match=r"^method nowhere_at_all\.thing: no source file"):
        registry.source_hash("method", "nowhere_at_all.thing")


def test_a_description_survives_json() -> None:
    @describe("mine", color="#123456", needs=("images",), limits=(0.0, 1.0))
    def thing() -> None: ...

    assert Description.from_json(thing.description.to_json()) == thing.description


@pytest.mark.parametrize(
    "more, said",
    [({"color": "green"}, "color 'green'"), ({"marker": "QQ"}, "marker 'QQ'"), ({"needs": "images"}, "needs='images'"),
     ({"needs": ("imagez",)}, r"needs=\('imagez',\)")],
)  # fmt: skip
def test_descriptions_that_figures_could_not_draw_are_refused(more: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"@describe: found {said}, expected"):
        registry.describe("mine", **more)(lambda: None)
