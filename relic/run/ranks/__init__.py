"""The processes of a run on this machine: how many, who starts them, what each does."""
