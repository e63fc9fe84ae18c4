"""The errors a user may see: what happened, where, and the way out."""

from __future__ import annotations


class MriError(Exception):
    """Something the user can understand and act on.

    Parameters
    ----------
    what : str
        One sentence: what is wrong and where.
    hint : str, optional
        The way out, in one sentence.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class FileProblem(MriError):
    """A file or folder cannot be read or written."""


class NotAnImage(FileProblem):
    """None of the known formats recognises the content."""


class BrokenFile(FileProblem):
    """The format is known but the content is damaged or lies about itself."""


class UnsupportedImage(FileProblem):
    """A sound file of a kind that is not a grey-value volume (complex, RGB, 5D …)."""


class SeveralSeries(FileProblem):
    """More than one series was found where one was asked for.

    Parameters
    ----------
    what, hint : str
        As in `MriError`.
    names : tuple of str
        What a person knows each series by, in the order `load_all` gives them.
    """

    def __init__(self, what: str, *, hint: str = "", names: tuple[str, ...] = ()) -> None:
        super().__init__(what, hint=hint)
        self.names = names


class GeometryProblem(MriError):
    """An affine, shape or spacing that cannot describe where voxels stand."""


class GridMismatch(GeometryProblem):
    """Two things that must lie on one grid do not."""


class MissingExtra(MriError):
    """An optional package is needed and not installed."""


class UnknownModel(MriError):
    """No model of that name, or none for that task."""


class BadOption(MriError):
    """A parameter of a model or tool is of the wrong kind or out of its range."""


class BadPrompt(MriError):
    """A prompt lies outside the scan or is of a kind the model does not take."""


class WeightsProblem(MriError):
    """Weights are missing, damaged, or not to be trusted."""


class OutOfMemory(MriError):
    """Neither the GPU nor the main memory can hold the work."""


class Cancelled(MriError):
    """The user pressed stop. Nothing was changed."""

    def __init__(self, what: str = "Stopped.", *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
