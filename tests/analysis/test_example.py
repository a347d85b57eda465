"""The example tables have the columns of a study's, and give every claim something to judge."""

import pandas as pd

from prunelens.analysis import example
from prunelens.variants import FIELDS

COLUMNS = {
    "accuracy": ["n", "top1", "top1_low", "top1_high", "top5", "top1_all_outputs", "conv_sparsity", "all_conv_sparsity",
                 "total_sparsity", "mask_sparsity"],
    "units": ["layer", "block", "position", "kind", "unit", "own_class", "alive", "mis", "concept_selectivity"],
    "classes": ["class_name", "output", "n", "top1"],
}  # fmt: skip


def test_tables_begin_with_the_fields_and_have_the_columns_of_a_study() -> None:
    found = example.tables()
    assert list(found) == list(COLUMNS)
    for name, table in found.items():
        assert table.columns[: len(FIELDS)].tolist() == FIELDS
        assert set(COLUMNS[name]) <= set(table) and table.columns.is_unique
    networks = set(found["accuracy"][FIELDS].itertuples(index=False, name=None))
    for name in ("units", "classes"):
        assert set(found[name][FIELDS].drop_duplicates().itertuples(index=False, name=None)) == networks


def test_tables_are_those_of_the_seed_and_of_plausible_values() -> None:
    found = example.tables()
    for name, table in example.tables().items():
        pd.testing.assert_frame_equal(table, found[name])
    assert not example.tables(1)["units"].equals(found["units"])
    assert found["accuracy"].top1.between(0, 1).all() and found["classes"].top1.between(0, 1).all()
    assert found["units"].mis[found["units"].alive].notna().all()
    budgets = found["accuracy"].groupby("epochs").seed.nunique()
    assert budgets[example.EPOCHS] == 3 and budgets[2 * example.EPOCHS] == 1
