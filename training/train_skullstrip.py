"""For train_corrector alone, until it takes this name from head_tasks; never committed."""

from training.head_tasks import HELD_OUT as HELD_OUT
