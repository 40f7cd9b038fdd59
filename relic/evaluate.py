"""The command line of evaluation: `python eval.py run=DIR [protocol=NAME] [key=value ...]`."""

from __future__ import annotations

from collections.abc import Sequence

from relic.console import started_as
from relic.evaluation.protocol import PROTOCOLS, Protocol
from relic.evaluation.settings import FIXED, Settings, named_protocol, parse
from relic.help import choice_list, comment_of, describe, entries, section_list, show
from relic.schema import ConfigError, nearest
from relic.stops import REFUSED, guarded

_GENERAL = """usage: eval.py run=DIR [protocol=NAME] [key=value ...]

Evaluate what a trained agent can do on trials that it has never seen.

  eval.py run=DIR                   by the protocol of the run's environment
  eval.py run=DIR trials=50 episodes=10 options.split=val
                                    by one of your own, such as for an environment of your own
  eval.py run=[DIR1,DIR2]           compares runs; checkpoint=all compares a run's checkpoints
  eval.py run=DIR context_limits=[none,last:512,drop_first:512]
                                    compares how much an agent remembers

Keys; --help KEY says all of one, --help all of all:
{own}

Keys that change the protocol (options.KEY for one of the environment's):
{changes}"""


def evaluate(arguments: Sequence[str]) -> int:
    """Run `eval.py` and return the exit status."""
    return guarded(lambda: _evaluate(arguments))


def _evaluate(arguments: Sequence[str]) -> int:
    if not arguments or not {"-h", "--help"}.isdisjoint(arguments):
        text = usage(*(a for a in arguments if "=" not in a and a not in ("-h", "--help")))
        show(text.replace("eval.py", started_as("eval.py")))
        return 0 if arguments else REFUSED
    settings, changes = parse(arguments)
    if settings.protocol is not None:
        named_protocol(settings.protocol, changes)  # to refuse mistakes at once
    # Here, because torch takes seconds to import, and only what will be evaluated needs it.
    from relic.evaluation.plans import carry_out

    return carry_out(settings, changes)


def usage(key: str = "", *more: str) -> str:
    """Return a page of `eval.py --help`.

    Args:
        key: A key, `all`, or nothing for the page that lists them.
        more: Further keys.

    Raises:
        ConfigError: If there is no such key; it names the nearest.
    """
    if more:
        return "\n\n".join(usage(one) for one in (key, *more))
    own = entries(Settings, {})
    changes = [e for e in entries(Protocol, {}) if e.key not in FIXED]
    known = {e.key: e for e in (*own, *changes)}
    if key == "all":
        return "\n\n".join(describe(entry) for entry in known.values())
    if key == "protocol":
        paths = sorted(PROTOCOLS.glob("*.yaml"))
        choices = choice_list({p.stem: comment_of(p.read_text()) for p in paths})
        return f"{describe(known[key])}\n\n{choices}"
    if key:
        if key not in known:
            raise ConfigError(f"--help {key}: unknown key. {nearest(key, known)}")
        return describe(known[key])
    return _GENERAL.format(own=section_list(own), changes=section_list(changes))
