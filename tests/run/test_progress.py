"""What a run says at its end of where its time went."""

import pytest

from relic.run.compose import compose
from relic.run.distributed import ALONE
from relic.run.progress import duration, plan_line, verdict
from relic.run.trainer import Trainer

from .conftest import TINY

FULL = {"updates.prefix_gradient": "full"}


@pytest.mark.parametrize(
    ("slowest", "keys", "told", "not_told"),
    [
        ("learn", FULL, "updates.prefix_gradient=detached", "smaller policy"),
        ("learn", {"updates.prefix_gradient": "detached"}, "fewer ppo.update_epochs", "detached"),
        ("learn", FULL | {"ablation": "no_partial_updates"}, "ppo.update_epochs", "detached"),
        ("learn", {"ppo.update_epochs": "1"}, "a smaller policy", "update_epochs"),
        ("simulate", {}, "rollout.groups=2", "epochs"),
        ("simulate", {"rollout.groups": "2"}, "more env threads", "groups"),
        ("act", {"rollout.num_envs": "32"}, "rollout.num_envs, 32 now", "groups"),
        ("refresh", {}, "fewer updates.per_rollout (4 now)", "groups"),
    ],
)
def test_the_advice_is_of_what_is_not_so_already(slowest, keys, told, not_told):
    said = verdict({"act": 1.0, slowest: 9.0}, compose({"experiment": "darkroom", **keys}))
    shares, _, advice = said.partition(". Faster with ")
    assert " 90 %" in shares or slowest == "act"
    assert told in advice
    assert not_told not in said


@pytest.mark.parametrize(
    ("total", "done", "told"),
    [
        ("40000", 0, "steps: 65,536, in 1 rollout of 65,536 (total_steps=40,000, rounded"),
        ("65536", 0, "steps: 65,536, in 1 rollout of 65,536"),
        ("131073", 70000, "steps: 70,000 to 196,608, in 2 rollouts of 65,536 (total_steps=131,073"),
        ("65536", 90000, "steps: 90,000, more than total_steps=65,536; the rollout is ended"),
    ],
)
def test_a_start_says_what_will_run(total, done, told):
    rows = {"rollout.num_envs": "128", "rollout.num_steps": "512"}
    config = compose({"experiment": "darkroom", "total_steps": total, **rows})
    said = plan_line(config, done)
    assert said.startswith(told)
    assert ("rounded" in said) == (config.total_steps % 65536 != 0)


def test_durations_are_short():
    assert [duration(s) for s in (4, 100, 1000, 7200, 90_000, 10**6)] == [
        "4 seconds",
        "1.7 minutes",
        "17 minutes",
        "2.0 hours",
        "25 hours",
        "12 days",
    ]


def test_the_bar_ends_where_the_run_ends(tmp_path, capsys):
    keys = {key: value for key, _, value in (k.partition("=") for k in TINY)}
    keys |= {"total_steps": "600", "logging.progress": "true", "run_dir": str(tmp_path)}
    keys |= {"validation.every_rollouts": "null", "checkpoint.best_metric": "null"}
    trainer = Trainer(compose(keys), ALONE)
    trainer.run()
    trainer.close()
    assert "steps: 1,024, in 2 rollouts of 512 (total_steps=600, rounded" in capsys.readouterr().err
    assert trainer.env_steps == 1024
    assert "1,024 of 1,024 (100 %)" in (tmp_path / "live.html").read_text()


def test_schedules_span_the_steps_that_are_done(tmp_path):
    """The rate reaches its end with the last rollout, not somewhere within it."""
    keys = dict(key.split("=") for key in TINY) | {"run_dir": str(tmp_path), "total_steps": "600"}
    schedule = {"ppo.lr_anneal": "linear", "ppo.lr_end": "0", "ppo.warmup_steps": "0"}
    trainer = Trainer(compose(keys | schedule | {"ppo.lr": "1e-3"}), ALONE)
    try:
        rates = [metrics["lr"] for metrics in trainer.updates(lambda: False)]
    finally:
        trainer.close()
    assert rates == pytest.approx([1e-3 * (8 - done) / 8 for done in range(8)])
