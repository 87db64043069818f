"""Compiled functions: there whatever becomes of the disk."""

import errno

import numpy as np
from numba.core import caching

from pipeline.model.machine_code import compile_for, compiled


def twice(numbers):
    return numbers.sum() * 2


def test_where_nothing_can_be_kept_functions_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert compiled(is_kept=True)(twice)(np.ones(3)) == 6


def test_a_full_disk_keeps_nothing_and_stops_nobody(monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "save_overload", fail)
    function = compiled(is_kept=True)(twice)
    compile_for(function, np.ones(3))
    assert function(np.ones(3)) == 6
