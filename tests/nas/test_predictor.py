"""The predictor of scores, and the proposals made with it, on scores that are made up."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from skelnas.derivation import choose_cell
from skelnas.genotype import Edge, Genotype, random_genotype
from skelnas.nas.predictor import (
    EdgeSpace,
    estimate,
    fit,
    noise_variance,
    tame,
)
from skelnas.nas.proposals import Proposals, learn
from skelnas.primitives import candidates

OPS = candidates("sar")[1:]
SPACE = EdgeSpace(OPS, 4)
SMALL = EdgeSpace(OPS[:3], 2)


def maximise(scores):
    return Genotype(choose_cell(scores["normal"]), choose_cell(scores["reduction"]))


def draw_in(space):
    return lambda seed: random_genotype(seed, ",".join(space.ops), space.num_nodes)


def random_genotypes(count, space=SPACE, first=0):
    return [draw_in(space)(seed) for seed in range(first, first + count)]


class Landscape:
    """True scores of genotypes, with the spread measured on NW-UCLA unless told otherwise.

    Two thirds of the variance are a sum over edges; half of that is particular to each edge, which
    the predictor's features can only approximate. A third is peculiar to each genotype. A training
    adds the noise of a seed.
    """

    def __init__(self, seed, space=SPACE, deviation=1.5, noise=1.7, peculiar=1 / 3):
        self.generator = np.random.default_rng(seed)
        self.space, self.noise = space, noise
        num_edges = sum(range(2, 2 + space.num_nodes))
        self.by_op = self.generator.normal(size=(2, len(space.ops)))
        self.by_edge = self.generator.normal(size=(2, num_edges, len(space.ops)))
        sample = np.array([self.sums(genotype) for genotype in random_genotypes(300, space)])
        self.means, spread = sample.mean(0), sample.std(0)
        self.factors = deviation * np.sqrt([(1 - peculiar) / 2, (1 - peculiar) / 2]) / spread
        self.peculiar = deviation * np.sqrt(peculiar)
        self.peculiarities = {}

    def edges(self, genotype):
        """Yield (cell, index of the edge, index of the operation) of every edge."""
        for cell, nodes in enumerate((genotype.normal, genotype.reduction)):
            first = 0
            for num_sources, node in enumerate(nodes, start=2):
                for edge in node:
                    yield cell, first + edge.source, self.space.ops.index(edge.op)
                first += num_sources

    def sums(self, genotype):
        edges = list(self.edges(genotype))
        return (
            sum(self.by_op[cell, op] for cell, _, op in edges),
            sum(self.by_edge[edge] for edge in edges),
        )

    def score(self, genotype):
        """Return the true score."""
        identity = genotype.identity
        if identity not in self.peculiarities:
            self.peculiarities[identity] = self.generator.normal() * self.peculiar
        additive = (np.array(self.sums(genotype)) - self.means) @ self.factors
        return additive + self.peculiarities[identity]

    def measure(self, genotypes, num_folds=2):
        """Return scores with noise, [genotypes, folds]; folds differ as a whole."""
        scores = np.array([self.score(genotype) for genotype in genotypes])[:, None]
        noise = self.generator.normal(size=(len(genotypes), num_folds)) * self.noise
        return scores + noise + 5 * np.arange(num_folds)

    def best(self):
        """Return the genotype with the highest sum over edges."""
        scores = self.factors[0] * self.by_op[:, None] + self.factors[1] * self.by_edge
        named = [[dict(zip(self.space.ops, edge, strict=True)) for edge in cell] for cell in scores]
        return maximise({"normal": named[0], "reduction": named[1]})


def plant(seed, space):
    """Return a landscape without noise that the predictor's features describe exactly."""
    landscape = Landscape(seed, space, noise=0.0, peculiar=0.0)
    sizes = (2, 2, space.num_nodes + 1, len(space.ops))
    by_target, by_source = landscape.generator.normal(size=sizes)
    ends = [(target, source) for target in range(space.num_nodes) for source in range(target + 2)]
    for index, (target, source) in enumerate(ends):
        landscape.by_edge[:, index] = by_target[:, target] + by_source[:, source]
    return landscape


def search(landscape, num_genotypes, seed=0):
    """Search a landscape; return the number of the choice, the genotypes and the findings."""
    space = landscape.space
    proposals = Proposals(space, num_genotypes, seed, draw_in(space), maximise)
    genotypes, scores = [], np.empty((0, 2))
    while chosen := proposals.next_round(genotypes, scores):
        genotypes += chosen
        scores = np.concatenate([scores, landscape.measure(chosen)])
    found = learn(space, genotypes, scores)
    return found.best_trained()[0], genotypes, found


def test_features_count_operations_alone_at_their_node_and_from_their_source():
    a, b = SMALL.ops[:2]
    cell = ((Edge(a, 0), Edge(b, 1)), (Edge(a, 2), Edge(a, 1)))
    (counts,) = SMALL.features([Genotype(cell, cell[:1])])
    normal, reduction = counts.reshape(2, len(SMALL.ops), -1)
    assert normal[0].tolist() == [3, 1, 2, 1, 1, 1]  # a; at nodes 2, 3; from nodes 0, 1, 2
    assert normal[1].tolist() == [1, 1, 0, 0, 1, 0]
    assert normal[2].tolist() == [0] * 6
    assert reduction.sum() == 6


def test_a_prediction_is_the_sum_of_the_edge_scores():
    landscape = Landscape(0)
    genotypes = random_genotypes(30)
    predictor = fit(SPACE, SPACE.features(genotypes), landscape.measure(genotypes).mean(1))
    scores = predictor.edge_scores()
    for genotype in random_genotypes(5, first=100):
        total = sum(
            scores[("normal", "reduction")[cell]][edge][SPACE.ops[op]]
            for cell, edge, op in landscape.edges(genotype)
        )
        assert predictor.predict([genotype]) == pytest.approx([predictor.intercept + total])


def test_the_ridge_is_the_least_squares_solution_with_a_penalty():
    genotypes = random_genotypes(40)
    scores = Landscape(1).measure(genotypes).mean(1)
    fitted = fit(SPACE, SPACE.features(genotypes), scores, strength=0.5)
    x = SPACE.features(genotypes)
    x = x - x.mean(0)
    penalty = 0.5 * np.square(x).sum() / len(x)
    weights = np.linalg.solve(
        x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (scores - scores.mean())
    )
    assert fitted.weights == pytest.approx(weights, abs=1e-10)
    assert fitted.predict(genotypes) == pytest.approx(scores.mean() + x @ weights, abs=1e-10)


def test_predictions_that_leave_one_out_are_those_of_fits_without_it():
    genotypes = random_genotypes(15)
    scores = Landscape(2).measure(genotypes).mean(1)
    fitted = fit(SPACE, SPACE.features(genotypes), scores, strength=2.0)
    x = SPACE.features(genotypes)
    penalty = 2.0 * np.square(x - x.mean(0)).sum() / len(x)  # the same, not relative to the rest
    for left_out in range(len(genotypes)):
        rest = np.delete(x, left_out, axis=0)
        targets = np.delete(scores, left_out)
        centred = rest - rest.mean(0)
        weights = np.linalg.solve(
            centred.T @ centred + penalty * np.eye(x.shape[1]),
            centred.T @ (targets - targets.mean()),
        )
        expected = targets.mean() + (x[left_out] - rest.mean(0)) @ weights
        assert fitted.left_out[left_out] == pytest.approx(expected, abs=1e-9)


def test_more_noise_means_a_stronger_ridge():
    genotypes = random_genotypes(40)
    strengths = []
    for noise in (0.0, 20.0):
        found = [
            fit(
                SPACE,
                SPACE.features(genotypes),
                Landscape(seed, noise=noise).measure(genotypes).mean(1),
            ).strength
            for seed in range(4)
        ]
        strengths.append(np.median(found))
    assert strengths[0] < strengths[1]


def test_the_noise_is_measured_by_the_folds():
    genotypes = random_genotypes(400)
    for noise, num_folds in itertools.product((0.0, 1.7), (2, 5)):
        scores = Landscape(3, noise=noise).measure(genotypes, num_folds)
        assert noise_variance(scores) == pytest.approx(noise**2 / num_folds, rel=0.15)


def test_estimates_are_closer_to_the_truth_than_scores_and_predictions():
    genotypes = random_genotypes(60)
    errors = []
    for seed in range(10):
        landscape = Landscape(seed)
        measured = landscape.measure(genotypes)
        truth = np.array([landscape.score(genotype) for genotype in genotypes]) + 2.5
        scores = measured.mean(1)
        left_out = fit(SPACE, SPACE.features(genotypes), scores).left_out
        found = estimate(scores, left_out, noise_variance(measured))
        off = [np.square(values - truth).mean() for values in (scores, left_out, found.values)]
        errors.append([*off, found.deviation**2])
    measured, predicted, estimated, claimed = np.mean(errors, axis=0)
    assert estimated < 0.85 * min(measured, predicted)
    assert claimed == pytest.approx(estimated, rel=0.3)


def test_without_noise_scores_count_and_with_nothing_but_noise_predictions():
    scores, left_out = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    assert estimate(scores, left_out, 0.0).values.tolist() == [1, 2, 3]
    found = estimate(scores, left_out, 5.0)
    assert found.values == pytest.approx([1.75, 2, 2.25])  # a mean of three is as far off, too
    assert found.deviation == pytest.approx((5 / 4) ** 0.5)
    assert estimate(scores, scores, 0.0).values.tolist() == [1, 2, 3]


def test_failed_trainings_do_not_decide_everything():
    scores = np.random.default_rng(0).normal(size=(40, 2))
    broken = scores.copy()
    broken[3, 0], broken[4, 1], broken[5] = -1e6, -np.inf, np.nan
    tamed = tame(broken)
    fine = np.delete(np.arange(40), [3, 4, 5])
    assert (tamed[fine] == scores[fine]).all()
    assert (tamed[[3, 4, 5], [0, 1, 1]] < scores.min(0)[[0, 1, 1]]).all()
    assert (tamed > -15).all()
    assert (tame(np.full((3, 2), np.nan)) == 0).all()


def test_a_planted_optimum_is_found():
    for seed in range(10):
        landscape = plant(seed, SMALL)
        chosen, genotypes, _ = search(landscape, 60)
        assert genotypes[chosen].identity == landscape.best().identity


def test_a_search_beats_the_best_of_as_many_random_genotypes():
    gains = []
    for seed in range(12):
        landscape = Landscape(seed)
        chosen, genotypes, _ = search(landscape, 32, seed)
        found = landscape.score(genotypes[chosen])
        drawn = random_genotypes(32, first=1000 * seed)
        best = drawn[landscape.measure(drawn).mean(1).argmax()]
        gains.append(found - landscape.score(best))
    assert np.mean(gains) > 0.5  # points, of which genotypes spread over 1.5
    assert np.mean(gains) > 3 * np.std(gains, ddof=1) / np.sqrt(len(gains))


def test_where_genotypes_do_not_differ_little_is_claimed():
    claimed, measured = [], []
    for seed in range(6):
        landscape = Landscape(seed, deviation=1e-6)
        _, genotypes, found = search(landscape, 32)
        claimed.append(found.estimates.values.max() - 2.5)
        measured.append(landscape.measure(genotypes).mean(1).max() - 2.5)
    assert np.mean(claimed) < 0.5 * np.mean(measured)


def test_half_of_the_genotypes_are_random_and_none_is_trained_twice():
    for number, ends in ((4, [2, 3, 4]), (7, [4, 5, 7]), (24, [12, 18, 24])):
        landscape = Landscape(0)
        proposals = Proposals(SPACE, number, 5, draw_in(SPACE), maximise)
        genotypes, scores, found = [], np.empty((0, 2)), []
        while chosen := proposals.next_round(genotypes, scores):
            genotypes += chosen
            scores = np.concatenate([scores, landscape.measure(chosen)])
            found.append(len(genotypes))
        assert found == ends
        assert len({genotype.identity for genotype in genotypes}) == number


def test_a_search_depends_on_nothing_but_seed_and_scores():
    chosen, genotypes, found = search(Landscape(7), 16)
    again, same, also = search(Landscape(7), 16)
    assert (again, same) == (chosen, genotypes)
    assert (also.estimates.values == found.estimates.values).all()
    scores = Landscape(7).measure(genotypes[:8])
    proposals = Proposals(SPACE, 16, 0, draw_in(SPACE), maximise)
    assert proposals.next_round(genotypes[:8], scores) == genotypes[8:12]
    other = replace(proposals, seed=1)
    assert other.next_round([], scores[:0]) != genotypes[:8]
    assert other.next_round(genotypes[:8], scores) != genotypes[8:12]


def test_a_search_ends_when_there_are_no_more_genotypes():
    space = EdgeSpace(OPS[:2], 1)  # 16 genotypes: 2 edges in each of 2 cells
    landscape = Landscape(0, space)
    _, genotypes, _ = search(landscape, 50)
    assert len({genotype.identity for genotype in genotypes}) == len(genotypes) == 16


def test_the_best_keeps_to_what_is_allowed():
    chosen, genotypes, found = search(Landscape(0), 16)
    values = found.estimates.values
    assert found.best_trained() == (chosen, values.max())
    second = np.argsort(values)[-2]
    assert found.best_trained(lambda one: one != genotypes[chosen]) == (second, values[second])
    assert found.best_trained(lambda _: False) is None
