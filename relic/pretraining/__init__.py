"""Picture encoders, trained before they are frozen.

Begin with `pretrain`, which a run starts by itself; `finetune_vit` is a command of its own.
"""
