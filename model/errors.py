"""Every error that this package raises on purpose.

    ModelError                      exit code 1
    ├── UnknownModelError           exit code 2: no preset has the name asked for
    ├── InputError                  a tensor or text is not what the function takes (also a ValueError)
    ├── TrainingError               training cannot go on: a loss that is no number, a state of another run
    └── WeightsError                pretrained weights cannot be used
        ├── WeightsNotFoundError    nowhere to be found
        └── WeightsDamagedError     found, but not the file that was meant

Texts say what is wrong, the rule, the value got and the next step, in one line.
"""


class ModelError(Exception):
    """Root of the tree. `exit_code` is what a command line exits with."""

    exit_code = 1


class UnknownModelError(ModelError):
    """No preset has the given name."""

    exit_code = 2


class InputError(ModelError, ValueError):
    """A tensor's shape or dtype, or a text, is outside what the function accepts."""


class TrainingError(ModelError):
    """Training cannot start or go on."""


class WeightsError(ModelError):
    """Pretrained weights cannot be used."""


class WeightsNotFoundError(WeightsError):
    """The weights are in none of the places that were searched."""


class WeightsDamagedError(WeightsError):
    """A file is there, but its SHA-256 or its tensors are not those of the weights that were meant."""
