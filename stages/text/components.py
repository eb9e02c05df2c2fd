"""Connected components of a graph that is cut into partitions: alternating large and small stars.

Kiveris et al. 2014, "Connected Components in MapReduce and Beyond": each round maps the edges of
one partition's nodes and hands them on by node, until every edge joins a node to the smallest node
of its component. A star keeps the connections of its edges, so any number of partitions gives the
same components, and no step sees the whole graph.

Edges are int64 [2, edges]: row 0 is the node they are partitioned by.
"""

from __future__ import annotations

import numpy as np


def sorted_edges(edges: np.ndarray) -> np.ndarray:
    """Every edge once, by row 0, then row 1."""
    order = np.lexsort((edges[1], edges[0]))
    edges = edges[:, order]
    if edges.shape[1] == 0:
        return edges
    new = np.r_[True, (edges[:, 1:] != edges[:, :-1]).any(axis=0)]
    return np.ascontiguousarray(edges[:, new])


def both_ways(edges: np.ndarray) -> np.ndarray:
    """Each edge from either end, sorted."""
    return sorted_edges(np.concatenate([edges, edges[::-1]], axis=1))


def _smallest(edges: np.ndarray) -> np.ndarray:
    """For each edge, the smallest of its node in row 0 and that node's neighbours."""
    first = np.flatnonzero(np.r_[True, edges[0, 1:] != edges[0, :-1]])
    lowest = np.minimum(np.minimum.reduceat(edges[1], first), edges[0, first])
    return np.repeat(lowest, np.diff(np.r_[first, edges.shape[1]]))


def large_star(edges: np.ndarray) -> np.ndarray:
    """Joins each larger neighbour of a node to the smallest of the neighbourhood.

    `edges` are all edges of the partition's nodes, from those nodes' side, sorted. The result goes
    to the partitions of its row 0, the larger ends.
    """
    if edges.shape[1] == 0:
        return edges
    larger = edges[1] > edges[0]
    return sorted_edges(np.stack([edges[1, larger], _smallest(edges)[larger]]))


def small_star(edges: np.ndarray) -> np.ndarray:
    """Joins a node and its smaller neighbours to the smallest of them.

    `edges` are those of the partition's nodes to smaller ones, sorted. The result, taken both ways,
    goes to the partitions of its row 0.
    """
    if edges.shape[1] == 0:
        return edges
    lowest = _smallest(edges)
    joined = np.concatenate([np.stack([edges[0], lowest]), np.stack([edges[1], lowest])], axis=1)
    return sorted_edges(joined[:, joined[0] != joined[1]])
