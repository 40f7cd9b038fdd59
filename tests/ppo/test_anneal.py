import pytest

from relic.ppo.config import Anneal, PPOConfig


@pytest.mark.parametrize(
    ("anneal", "steps", "expected"),
    [
        ("cosine", 0, 1e-3 * 1e-3),
        ("cosine", 50, 1e-3 * 0.5005),
        ("cosine", 100, 1e-3),
        ("cosine", 600, 1e-3 * 0.55),
        ("cosine", 1100, 1e-4),
        ("cosine", 5000, 1e-4),
        ("linear", 350, 1e-3 * 0.775),
        ("constant", 1100, 1e-3),
    ],
)
def test_learning_rate(anneal, steps, expected):
    config = PPOConfig(lr=1e-3, lr_anneal=Anneal(anneal), lr_end=0.1, warmup_steps=100)
    assert config.learning_rate_at(steps, 1100) == pytest.approx(expected)


def test_entropy_coefficient():
    config = PPOConfig(ent_coef=0.02, ent_coef_end=0.002)
    assert config.entropy_coefficient_at(0, 1000) == pytest.approx(0.02)
    assert config.entropy_coefficient_at(500, 1000) == pytest.approx(0.011)
    assert config.entropy_coefficient_at(2000, 1000) == pytest.approx(0.002)
    assert PPOConfig(ent_coef=0.1).entropy_coefficient_at(500, 1000) == pytest.approx(0.1)
