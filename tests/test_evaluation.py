"""Scores over whole sets, against scikit-learn and against what is known in closed form."""

import numpy as np
import pytest
import scipy.linalg

from evaluation import frechet, pca


def data(rows=60, shape=(3, 4), seed=0):
  """Correlated features far from zero, whose principal components are well apart."""
  generator = np.random.default_rng(seed)
  size = int(np.prod(shape))
  mixed = generator.normal(size=(rows, size)) * np.geomspace(5, 0.1, size)
  rotation, _ = np.linalg.qr(generator.normal(size=(size, size)))
  return (mixed @ rotation + 7).reshape(rows, *shape)


# PCA.


@pytest.mark.parametrize("count", [1, 3, 12])
def test_components_are_scikit_learns(count):
  decomposition = pytest.importorskip("sklearn.decomposition")
  x = data()
  theirs = decomposition.PCA(count, svd_solver="full").fit(x.reshape(60, -1))
  mean, directions = pca.components(x, count)
  np.testing.assert_allclose(mean, theirs.mean_, rtol=1e-12)
  # A direction's sign is anyone's: compare each with its own.
  cosines = np.abs((directions * theirs.components_).sum(1))
  np.testing.assert_allclose(cosines, 1, rtol=1e-9)
  np.testing.assert_allclose(directions @ directions.T, np.eye(count), atol=1e-12)


def test_projection_is_scikit_learns():
  decomposition = pytest.importorskip("sklearn.decomposition")
  x = data()
  theirs = decomposition.PCA(2, svd_solver="full").fit_transform(x.reshape(60, -1))
  np.testing.assert_allclose(np.abs(pca.project(x, 2)), np.abs(theirs), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("count", [1, 5])
def test_squared_error_is_scikit_learns(count):
  decomposition = pytest.importorskip("sklearn.decomposition")
  train, test = data(seed=0), data(seed=1)
  theirs = decomposition.PCA(count, svd_solver="full").fit(train.reshape(60, -1))
  flat = test.reshape(60, -1)
  rebuilt = theirs.inverse_transform(theirs.transform(flat))
  expected = np.square(flat - rebuilt).sum(1).mean()
  assert pca.squared_error(train, test, count) == pytest.approx(expected, rel=1e-9)


def test_squared_error_is_the_tail_of_the_spectrum():
  # Baldi & Hornik 1989: on the set it was fitted to, the variances that were left out.
  x = data()
  values = np.linalg.eigvalsh(np.cov(x.reshape(60, -1), rowvar=False, bias=True))[::-1]
  for count in (0, 1, 4, 11):
    assert pca.squared_error(x, x, count) == pytest.approx(values[count:].sum(), rel=1e-9)
  assert pca.squared_error(x, x, 12) == pytest.approx(0, abs=1e-9)


def test_float32_images_far_from_zero_lose_nothing():
  x = data() + 1000
  mean, directions = pca.components(x.astype(np.float32), 3)
  exact_mean, exact = pca.components(x, 3)
  np.testing.assert_allclose(mean, exact_mean, rtol=1e-6)
  np.testing.assert_allclose(np.abs((directions * exact).sum(1)), 1, rtol=1e-6)


# The Frechet distance.


@pytest.mark.parametrize("features", [1, 2, 6])
def test_a_set_is_at_no_distance_from_itself(features):
  x = data(shape=(max(features, 2),))[:, :features]
  assert frechet.distance(x, x) == pytest.approx(0, abs=1e-6 * x.var(0).sum())


def test_a_shift_is_at_its_squared_length():
  x = data(shape=(5,))
  shift = np.array([3.0, -1, 0, 2, 0.5])
  assert frechet.distance(x, x + shift) == pytest.approx(np.square(shift).sum(), rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [(1.0, 2.0), (0.5, 3.0), (2.0, 2.0)])
def test_a_scaling_is_at_the_trace_of_what_it_changes(a, b):
  # C_a = a^2 C and C_b = b^2 C commute, so the distance is tr((a - b)^2 C), means apart.
  x = data(shape=(5,))
  x -= x.mean(0)
  expected = (a - b) ** 2 * np.trace(np.cov(x, rowvar=False))
  assert frechet.distance(a * x, b * x) == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_distance_is_the_gaussian_formula_where_covariances_do_not_commute():
  a, b = data(shape=(5,), seed=0), data(rows=80, shape=(5,), seed=1)
  c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  half = scipy.linalg.sqrtm(c_a)
  # The symmetric form of the same trace: tr (C_a^(1/2) C_b C_a^(1/2))^(1/2).
  cross = np.trace(np.real(scipy.linalg.sqrtm(half @ c_b @ half)))
  expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c_a) + np.trace(c_b) - 2 * cross
  assert frechet.distance(a, b) == pytest.approx(expected, rel=1e-6)
  assert frechet.distance(b, a) == pytest.approx(expected, rel=1e-6)
  assert expected > 1


def test_distance_of_sets_with_constant_features_is_finite():
  # Generated images may have pixels that never change: a singular covariance.
  x, y = data(shape=(5,)), data(shape=(5,), seed=1)
  y[:, 3:] = 0.0
  found = frechet.distance(x, y)
  assert np.isfinite(found)
  assert found > 0


def test_principal_distance_sees_only_the_first_components():
  x = data()
  mean, directions = pca.components(x, 12)
  flat = x.reshape(60, -1)
  outside = (flat + 5 * directions[10]).reshape(x.shape)
  inside = (flat + 5 * directions[1]).reshape(x.shape)
  assert frechet.principal_distance(x, x, outside, count=4) == pytest.approx(0, abs=1e-5)
  assert frechet.principal_distance(x, x, inside, count=4) == pytest.approx(25, rel=1e-6)
  np.testing.assert_allclose(mean, flat.mean(0))
