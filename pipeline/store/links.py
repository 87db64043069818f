"""Symbolic links to videos: what DVC, git-annex and caches of hubs keep instead of files.

Covered: links that lead in a circle, to nothing, to what is no regular file, out of bounds.
Not covered: a folder on the way that is a link; whoever names a path trusts its folders.
"""

import errno
import os
from collections.abc import Sequence

from pipeline.errors import BadInput, FailureCode


def followed(path: str, *, roots: Sequence[str] = ()) -> str:
    """The file at which a link ends; any other path as it is. BadInput says what is wrong with it.

    roots: folders, as realpath gives them, in one of which it has to end; none is no bound.
    """
    if not os.path.islink(path):
        return path
    try:
        end = os.path.realpath(path, strict=True)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused("a link that leads in a circle") from error
        raise BadInput(FailureCode.NOT_FOUND, "a link that leads to nothing") from error
    if not os.path.isfile(end):
        raise _refused("a link that ends at a folder, pipe or device, not at a file")
    if roots and not any(_is_within(end, root) for root in roots):
        raise _refused("a link that ends outside the folders that links may lead to")
    return end


def _is_within(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def _refused(detail: str) -> BadInput:
    return BadInput(FailureCode.NOT_A_REGULAR_FILE, detail)
