"""Help says of every field what it means, with the value that it would have."""

import sys
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Annotated, Literal, get_args, get_type_hints

import pytest

from relic import help as pages
from relic.console import doctor, evaluate, train
from relic.evaluation.protocol import Protocol
from relic.evaluation.settings import Settings
from relic.run.compose import describe_choice, groups
from relic.run.config import RunConfig
from relic.schema import ConfigError, at_least
from relic.train import help_page


class Kind(Enum):
    """How."""

    SLOW = "slow"
    """Takes
    long."""
    FAST = "fast"


@dataclass
class Inner:
    """What is inside.

    More of it.
    """

    kind: Kind = Kind.SLOW
    """Which kind."""


@dataclass
class Base:
    """The base."""

    size: Annotated[int | None, at_least(2)] = None
    """How large. None: as large as it
    must be."""


@dataclass
class Outer(Base):
    """All."""

    inner: Inner = field(default_factory=Inner)
    """In it."""
    names: tuple[str, ...] = ("a",)
    """Names."""
    word: Literal["x", "y"] = "x"
    """A word."""


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")


@pytest.fixture
def ours(monkeypatch):
    """Texts are read from our own modules only; this file stands for one."""
    monkeypatch.setattr(pages, "__package__", __name__.partition(".")[0])
    pages.field_texts.cache_clear()
    yield
    pages.field_texts.cache_clear()


@pytest.mark.usefixtures("ours")
def test_a_page_holds_name_value_type_bound_and_text():
    assert pages.page(Outer, {"names": ["b", "c"]}) == (
        "size=null    (whole number or null, at least 2)\n"
        "    How large. null: as large as it must be.\n\n"
        "names=[b, c]    ([text, ...])\n    Names.\n\n"
        "word=x    (x | y)\n    A word."
    )
    assert pages.page(Outer, {"inner": {"kind": "fast"}}, "inner") == (
        "inner: What is inside. In it.\n\n"
        "inner.kind=fast    (slow | fast)\n    Which kind.\n      slow  Takes long."
    )
    assert pages.page(Outer, {}, "word").startswith("word=x")
    with pytest.raises(ConfigError, match=r"unknown 'knd'\. Did you mean 'kind'"):
        pages.page(Outer, {}, "inner.knd")


@pytest.mark.parametrize("cls", [RunConfig, Settings, Protocol])
def test_every_field_says_what_it_means(cls):
    def silent(cls, path=""):
        for entry in pages.entries(cls, {}, path):
            own = entry.section is not None or pages.field_texts(cls).get(entry.key.split(".")[-1])
            if not own:
                yield entry.key
            if entry.section is not None:
                yield from silent(entry.section, entry.key)

    assert not list(silent(cls))


def _fields(cls, path=""):
    """Names of all fields and sections, those of a section that may be null included."""
    for name, hint in get_type_hints(cls).items():
        yield f"{path}{name}"
        for kind in (hint, *get_args(hint)):
            if is_dataclass(kind):
                yield from _fields(kind, f"{path}{name}.")


def test_all_pages_show_every_field_with_the_value_of_the_run():
    keys = ["experiment=darkroom", "ppo.lr=0.25", "policy.goal_location={}"]
    shown = help_page("all", keys)
    assert "ppo.lr=0.25    (number, at least 0 and finite)" in shown
    for key in _fields(RunConfig):
        assert f"\n{key}=" in shown or f"\n{key}: " in shown, key
    assert "policy.encoder.sightings.source=rgb" in shown


def test_groups_say_what_their_files_begin_with():
    assert "sink_none" in help_page("ablation", [])
    assert "A partial update sees its chunk alone." in help_page("ablation", [])
    for group, names in groups().items():
        for name in names:
            assert len(describe_choice(group, name)) > 10, f"{group}/{name}"


def test_the_general_page_is_short_and_names_all_others():
    general = help_page("", [])
    assert len(general.splitlines()) < 45
    for section in RunConfig.__dataclass_fields__:
        assert section in general
    # What it calls pages are pages.
    for name in (*groups(), "run", "env", "policy.encoder.vit", "ppo.lr"):
        assert help_page(name, [])


@pytest.mark.parametrize(
    ("script", "command", "started"),
    [
        ("train.py", train, "relic-train"),
        ("eval.py", evaluate, "relic-eval"),
        ("python -m relic.doctor", doctor, "relic-doctor"),
    ],
)
def test_help_names_the_command_that_the_user_typed(script, command, started, monkeypatch, capsys):
    def said(path: str) -> str:
        monkeypatch.setattr(sys, "argv", [path, "--help"])
        with suppress(SystemExit):  # as argparse ends
            command()
        return capsys.readouterr().out

    assert started not in said(f"/home/{script}")
    ours = said(f"/usr/bin/{started}")
    assert f"usage: {started} " in ours
    assert script not in ours


def test_a_reader_may_leave_early(monkeypatch, tmp_path):
    def gone(*_, **__):
        raise BrokenPipeError

    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr("builtins.print", gone)
        monkeypatch.setattr("sys.stdout", out)
        pages.show("text")
