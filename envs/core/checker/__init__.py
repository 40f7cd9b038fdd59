"""Does an environment keep the trial contract? `check_trial_env` says what is wrong.

Run it in the tests of an environment of your own:

    from envs import check_trial_env
    check_trial_env(MyVectorEnv(num_envs=3), make=MyVectorEnv)
"""

from envs.core.checker.checker import TrialEnvError, check_trial_env

__all__ = ["TrialEnvError", "check_trial_env"]
