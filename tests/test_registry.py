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
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is edited within a second is imported anew
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


OLD, NEW = "def number(): return 1\n", "def number(): return 2\n"
USES = {
    "my_parts.py": "import my_helper\nthing = my_helper.number\n",
    "my_helper.py": "from my_package.inner import number\nimport torch, os.path, absent\n",
    "my_package/__init__.py": "",
    "my_package/inner.py": "from . import __init__ as top\nfrom .deepest import *\n",
    "my_package/deepest.py": OLD,
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(source)


@pytest.mark.parametrize("changed", USES)
def test_a_source_is_that_of_all_of_the_users_modules(mine: Path, changed: str) -> None:
    """Helpers in the same file, in files beside it, in packages."""
    write(mine.parent, USES)
    before = set(sys.modules)
    first, now = registry._source("method", "my_parts.thing")
    assert first == now == registry.own_source("method", "my_parts.thing")
    registry.check_unchanged("method", "my_parts.thing")
    write(mine.parent, {changed: f"{USES[changed]}\n{NEW}"})
    assert registry._source("method", "my_parts.thing")[1] != first
    assert set(sys.modules) == before, "it was imported"


def test_code_that_a_process_has_read_keeps_its_source(mine: Path) -> None:
    """Edited while it runs, a file is that of the next process; this one refuses to begin anything new with it."""
    mine.write_text(OLD)
    old = registry.own_source("method", "my_parts.number")
    assert registry.find("method", "my_parts.number")() == 1
    mine.write_text(NEW)
    assert registry.own_source("method", "my_parts.number") == old
    with pytest.raises(ValueError, match=r"^method my_parts\.number: its source has changed .*start again"):
        registry.check_unchanged("method", "my_parts.number")


def test_code_that_changed_between_its_key_and_its_import_is_refused(mine: Path) -> None:
    mine.write_text(OLD)
    registry.own_source("method", "my_parts.number")
    mine.write_text(NEW)
    with pytest.raises(ValueError, match="has changed since it was read"):
        registry.find("method", "my_parts.number")


@pytest.mark.parametrize("name", ["nowhere_at_all.thing", "sys.exit", "nowhere.at_all.thing"])
def test_what_has_no_source_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^method {name}: no source file of module"):
        registry.own_source("method", name)


FORMS = """
from functools import partial
class Part:
    def __init__(self, power): self.power = power
    def __call__(self, network, rate, context): return self.power
def factory(power): return lambda network, rate, context: power
def plain(network, rate, context, power): return power
object, partially, closure = Part(2), partial(plain, power=2), factory(2)
"""


@pytest.mark.parametrize("form", ["object", "partially", "closure"])
def test_a_part_may_be_an_object_a_partial_or_made_by_a_factory(mine: Path, form: str) -> None:
    """What they are bound to stands in their module, whose source is in their key."""
    mine.write_text(FORMS)
    part, first = registry.find("method", f"my_parts.{form}"), registry.own_source("method", f"my_parts.{form}")
    assert part(None, 0.5, None) == 2 and registry.description(part, f"my_parts.{form}").label == form
    mine.write_text(FORMS.replace("2", "3"))
    assert registry._source("method", f"my_parts.{form}")[1] != first


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
