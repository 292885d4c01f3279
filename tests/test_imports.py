"""Collections wait while a large library is imported, and only then."""

from __future__ import annotations

import gc

import pytest

from holo_cli.imports import no_collections


def test_collections_are_off_inside_and_on_again_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError):
        _fails_inside()
    assert gc.isenabled()


def _fails_inside() -> None:
    with no_collections():
        assert not gc.isenabled()
        raise ModuleNotFoundError


def test_who_turned_collections_off_keeps_them_off() -> None:
    gc.disable()
    try:
        with no_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
