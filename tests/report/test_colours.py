from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fieldshift.report.figures.look import MARKS, ROLE_COLOURS, SERIES


def machado(colour: str, kind: str) -> np.ndarray[Any, Any]:
    """The colour in CIE Lab as a dichromat sees it (Machado, Oliveira and Fernandes 2009, severity 1)."""
    matrices = {
        "normal": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrices[kind]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["normal", "protan", "deutan", "tritan"])
def test_the_three_roles_can_be_told_apart_by_colour_blind_readers(kind: str) -> None:
    for one, other in combinations(ROLE_COLOURS.values(), 2):
        assert float(np.linalg.norm(machado(one, kind) - machado(other, kind))) > 20


def test_series_differ_by_mark_as_well_as_by_colour() -> None:
    assert len(set(SERIES)) == len(SERIES) == len(MARKS) == len(set(MARKS))
