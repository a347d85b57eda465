"""Labels and looks that the tests of the report draw with."""

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")
sys.path.append(str(Path(__file__).parent))  # for report_examples

import matplotlib.pyplot as plt
from report_examples import DESCRIPTIONS, make_accuracies

from prunelens.report import style


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    style.register(DESCRIPTIONS)
    yield
    plt.close("all")


@pytest.fixture
def accuracies() -> pd.DataFrame:
    return make_accuracies()
