//! Where to cut a graph in two so that the fewest row elements cross: a minimum cut.
//!
//! Each value is computed on the near side or on the far side; a value computed near can be stored, and only
//! stored values are seen from the far side. Storing has a cost. The cheapest choice is a minimum cut (Ford &
//! Fulkerson 1956) of a network with two vertices for each value v: *made* (near: v is computed there) and *kept*
//! (far: v is stored). The arc made → kept has the cost as its capacity; arcs without limit forbid what cannot be:
//! a value made near of one that is made far only, and a value made far of one that is neither made nor kept there.
//!
//! Bodies have at most some hundred values, so augmenting along shortest paths (Edmonds & Karp 1972) is fast enough.

use std::collections::VecDeque;

use crate::ir::Value;

const UNLIMITED: u64 = u64::MAX / 4;

/// A choice between two sides for the values of a graph.
pub struct Cut {
    /// Arcs in pairs, each with its reverse behind it: head and what can still flow.
    arcs: Vec<(usize, u64)>,
    /// Arcs that leave a vertex.
    from: Vec<Vec<usize>>,
}

const NEAR: usize = 0;
const FAR: usize = 1;

fn made(v: Value) -> usize {
    2 + 2 * v.index()
}

fn kept(v: Value) -> usize {
    3 + 2 * v.index()
}

impl Cut {
    /// Nothing is asked yet of a graph of `n` values.
    pub fn new(n: usize) -> Cut {
        Cut { arcs: Vec::new(), from: vec![Vec::new(); 2 + 2 * n] }
    }

    fn arc(&mut self, from: usize, to: usize, capacity: u64) {
        self.from[from].push(self.arcs.len());
        self.arcs.push((to, capacity));
        self.from[to].push(self.arcs.len());
        self.arcs.push((from, 0));
    }

    /// What it costs to store a value.
    pub fn cost(&mut self, v: Value, cost: u64) {
        self.arc(made(v), kept(v), cost);
    }

    /// A value is at hand on the far side if another is, at no cost.
    pub fn follows(&mut self, v: Value, other: Value) {
        self.arc(kept(other), kept(v), UNLIMITED);
    }

    /// What it costs to compute a value on the far side.
    pub fn cost_far(&mut self, v: Value, cost: u64) {
        self.arc(NEAR, made(v), cost);
    }

    /// A value is computed of another.
    pub fn uses(&mut self, v: Value, operand: Value) {
        self.arc(made(v), made(operand), UNLIMITED);
        self.arc(kept(operand), made(v), UNLIMITED);
    }

    /// A value must be computed on the near side.
    pub fn near(&mut self, v: Value) {
        self.arc(NEAR, made(v), UNLIMITED);
    }

    /// A value must be computed on the far side.
    pub fn far(&mut self, v: Value) {
        self.arc(made(v), FAR, UNLIMITED);
    }

    /// A value is needed on the far side.
    pub fn wanted(&mut self, v: Value) {
        self.arc(kept(v), FAR, UNLIMITED);
    }

    /// Which values are computed on the near side; of the cheapest cuts, the one with the fewest or the most.
    pub fn solve(mut self, most: bool, values: impl Iterator<Item = Value>) -> Vec<bool> {
        while self.augment() {}
        let near = if most {
            let reach = self.search(FAR, |cut, arc| cut.arcs[arc ^ 1].1);
            reach.iter().map(|r| r.is_none()).collect::<Vec<_>>()
        } else {
            let reach = self.search(NEAR, |cut, arc| cut.arcs[arc].1);
            reach.iter().map(|r| r.is_some()).collect()
        };
        values.map(|v| near[made(v)]).collect()
    }

    /// Vertices that can be reached over arcs with room, each with the arc it was reached by.
    fn search(&self, start: usize, room: impl Fn(&Cut, usize) -> u64) -> Vec<Option<usize>> {
        let mut by = vec![None; self.from.len()];
        by[start] = Some(usize::MAX);
        let mut queue = VecDeque::from([start]);
        while let Some(vertex) = queue.pop_front() {
            for &arc in &self.from[vertex] {
                let to = self.arcs[arc].0;
                if by[to].is_none() && room(self, arc) > 0 {
                    by[to] = Some(arc);
                    queue.push_back(to);
                }
            }
        }
        by
    }

    /// Sends more flow from near to far, if there is room.
    fn augment(&mut self) -> bool {
        let by = self.search(NEAR, |cut, arc| cut.arcs[arc].1);
        let mut path = Vec::new();
        let mut vertex = FAR;
        while vertex != NEAR {
            let Some(arc) = by[vertex] else { return false };
            path.push(arc);
            vertex = self.arcs[arc ^ 1].0;
        }
        let flow = path.iter().map(|&arc| self.arcs[arc].1).min().expect("a path has arcs");
        assert!(flow < UNLIMITED, "what must be near cannot be wanted far without being kept");
        for arc in path {
            self.arcs[arc].1 -= flow;
            self.arcs[arc ^ 1].1 += flow;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<Value> {
        let mut graph = crate::ir::Graph::new();
        (0..n).map(|i| graph.scalar(i as f64)).collect()
    }

    /// A wide value, narrowed, then used far away: the narrow one is stored.
    #[test]
    fn the_narrowest_place_is_cut() {
        let v = values(3);
        let mut cut = Cut::new(3);
        for (i, cost) in [40, 4, 8].into_iter().enumerate() {
            cut.cost(v[i], cost);
        }
        cut.uses(v[1], v[0]);
        cut.uses(v[2], v[1]);
        cut.near(v[0]);
        cut.wanted(v[2]);
        assert_eq!(cut.solve(false, v.into_iter()), [true, true, false]);
    }

    #[test]
    fn ties_go_to_the_side_that_is_asked_for() {
        for most in [false, true] {
            let v = values(2);
            let mut cut = Cut::new(2);
            v.iter().for_each(|&v| cut.cost(v, 4));
            cut.uses(v[1], v[0]);
            cut.near(v[0]);
            cut.wanted(v[1]);
            assert_eq!(cut.solve(most, v.into_iter()), [true, most]);
        }
    }
}
