"""ComBat against known shifts: what belongs to the batch goes, what belongs to the patients stays, and nothing of held rows is learnt."""

from __future__ import annotations

import numpy as np
import pytest

from ImmunoRadiomicsLib.classifiers.trained import BatchCorrection
from ImmunoRadiomicsLib.errors import InputError
from ImmunoRadiomicsLib.training.harmonisation import fit_correction, harmonise, share_between


def batched(rows: int = 240, columns: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return measurements with the mark of three scanners, those without it, and the scanners."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(rows, columns)) * np.geomspace(0.01, 1e5, columns)
    batch = np.array(["A", "B", "C"])[rng.integers(3, size=rows)]
    marked = plain.copy()
    for name, shift, factor in (("A", 0.0, 1.0), ("B", 1.5, 2.0), ("C", -1.0, 0.5)):
        own = rng.normal(size=columns) * 0.2
        marked[batch == name] = plain[batch == name] * factor + (shift + own) * plain.std(axis=0)
    return marked, plain, batch


def test_shift_and_spread_of_the_scanners_go() -> None:
    marked, plain, batch = batched()
    found = harmonise(marked, batch)
    assert found.batches == ("A", "B", "C")
    assert np.median(found.share_before) > 0.2
    assert np.median(found.share_after) < 0.005
    correlation = [np.corrcoef(found.values[:, item], plain[:, item])[0, 1] for item in range(plain.shape[1])]
    before = [np.corrcoef(marked[:, item], plain[:, item])[0, 1] for item in range(plain.shape[1])]
    assert np.min(correlation) > 0.97
    assert np.max(before) < 0.9
    spreads = [found.values[batch == name].std(axis=0) for name in "ABC"]
    assert np.mean(spreads[1] / spreads[2]) == pytest.approx(1, abs=0.03)
    assert "3 batches" in found.note


@pytest.mark.parametrize("adjust", [False, True])
def test_the_reference_says_the_same(adjust: bool, capsys: pytest.CaptureFixture[str]) -> None:
    reference = pytest.importorskip("neuroCombat")
    pandas = pytest.importorskip("pandas")
    marked, _, batch = batched()
    age = np.random.default_rng(1).normal(size=len(marked))
    marked += 0.5 * age[:, None] * marked.std(axis=0)
    covars = pandas.DataFrame({"batch": batch, "age": age})
    expected = reference.neuroCombat(marked.T, covars, "batch", continuous_cols=["age"] if adjust else None)["data"].T
    found = harmonise(marked, batch, covariates=age[:, None] if adjust else None).values
    assert np.allclose(found / marked.std(axis=0), expected / marked.std(axis=0), atol=2e-3)


def test_correction_is_learnt_from_the_given_rows_alone() -> None:
    marked, plain, batch = batched()
    seen = np.arange(len(marked)) % 2 == 0
    fitted = fit_correction(marked[seen], batch[seen])
    other = marked.copy()
    other[~seen] *= 17.0
    assert fit_correction(other[seen], batch[seen]) == fitted
    held = fitted(marked[~seen], batch[~seen])
    assert np.median(share_between(held, batch[~seen])) < 0.03
    assert np.corrcoef(held[:, 3], plain[~seen, 3])[0, 1] > 0.97
    # All rows at once and their line say the same.
    assert np.allclose(fitted(marked[seen], batch[seen]), harmonise(marked[seen], batch[seen]).values)


def test_unknown_and_small_batches_and_still_columns_stay() -> None:
    marked, _, batch = batched()
    batch = batch.astype(object)
    batch[:3] = "D"
    marked[:, 4] = 2.5
    marked[10, 6] = np.nan
    found = harmonise(marked, batch)
    assert found.left == ("D",)
    assert found.untouched == (4,)
    assert np.array_equal(found.values[:3], marked[:3])
    assert np.isnan(found.values[10, 6])
    assert np.isfinite(np.delete(found.values, 6, axis=1)).all()
    fitted = fit_correction(marked, batch)
    assert np.array_equal(fitted(marked[:5], ["E"] * 5), marked[:5])
    assert fit_correction(marked, ["A"] * len(marked)) == BatchCorrection((), (), ())
    part = fitted.take([7, 1])
    assert np.array_equal(part(marked[:, [7, 1]], batch), fitted(marked, batch)[:, [7, 1]])


def test_what_covariates_explain_is_kept() -> None:
    rng = np.random.default_rng(4)
    batch = np.repeat(["A", "B"], 100)
    age = rng.normal(size=200) + np.repeat([0.0, 2.0], 100)
    values = rng.normal(size=(200, 20)) + age[:, None] + np.repeat([0.0, 5.0], 100)[:, None]
    plain, kept = harmonise(values, batch), harmonise(values, batch, covariates=age[:, None])
    slope = [np.polyfit(age, item.values.mean(axis=1), 1)[0] for item in (plain, kept)]
    assert slope[1] == pytest.approx(1.0, abs=0.05)
    assert slope[0] < 0.7


def test_what_does_not_fit_is_refused() -> None:
    marked, _, batch = batched()
    with pytest.raises(InputError, match="one batch"):
        harmonise(marked, batch[:-1])
    with pytest.raises(InputError, match="covariate"):
        harmonise(marked, batch, covariates=np.full((len(marked), 1), np.nan))
