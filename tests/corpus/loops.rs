//! Loops and their ports: states that are each other, values that are given out twice, or that were there before.

use retrograd::prelude::*;

use super::{energy, record};

/// a' = b and b' = a.
fn swap() -> Program {
    record("states_that_swap", |p| {
        let (x, a0, b0) = (p.sequence("x", 5), p.input("a0", 5), p.input("b0", 5));
        let w = p.parameter("w", 5, Init::Normal(0.5));
        let start = a0 * w;
        let run = p.scan("swap", |s| {
            let (a, b) = (s.state_from("a", start), s.state_from("b", b0));
            s.next(a, b);
            s.next(b, a);
            a * s.at(x)
        });
        p.output("y", run.all());
        p.output("a", run.state("a"));
        p.output("b", run.state("b"));
        p.minimize(energy(run.all()).mean_rows() + energy(run.state("a") * run.state("b") * w).mean_rows());
    })
}

/// Three in a ring, one of which is computed.
fn ring() -> Program {
    record("states_in_a_ring", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("ring", |s| {
            let (a, b, c) = (s.state("a", 3), s.state("b", 3), s.state("c", 3));
            s.next(a, b);
            s.next(b, c);
            let c1 = s.next(c, (s.linear("w", a, 3) + s.at(x) + b * 0.5).tanh());
            [a, b, c, c1]
        });
        for (name, r) in ["a", "b", "c", "c1"].into_iter().zip(run) {
            p.output(name, r.all());
            p.output(&format!("{name}_last"), r.last());
        }
        for name in ["a", "b", "c"] {
            p.output(&format!("{name}_end"), run[0].state(name));
        }
        p.minimize(energy(run[0].all()) + energy(run[3].all()));
    })
}

/// A state that holds the last input, or a weight, or what it was given.
fn held() -> Program {
    record("states_that_hold", |p| {
        let (x, c) = (p.sequence("x", 5), p.input("c", 5));
        let w = p.parameter("w", 5, Init::Normal(0.5));
        let run = p.scan("hold", |s| {
            let (last, weight, kept) = (s.state("last", 5), s.state("weight", 5), s.state_from("kept", c));
            s.next(last, s.at(x));
            s.next(weight, w);
            s.next(kept, kept);
            s.at(x) * last + weight * kept
        });
        p.output("y", run.all());
        p.output("end", run.last());
        for name in ["last", "weight", "kept"] {
            p.output(name, run.state(name));
        }
        p.minimize(energy(run.all()).mean_rows() + energy(run.state("weight") * run.state("last")).mean_rows());
    })
}

/// What a step gives out was never computed in it.
fn given_out_as_it_is() -> Program {
    record("yields_of_what_is_there", |p| {
        let (x, c) = (p.sequence("x", 5), p.input("c", 5));
        let run = p.scan("loop", |s| {
            let h = s.state("h", 5);
            let h1 = s.next(h, (h + s.at(x)).sin());
            ([s.at(x), c, h], [h1, h1])
        });
        for (name, r) in ["x", "c", "before"].into_iter().zip(run.0) {
            p.output(name, r.all());
            p.output(&format!("{name}_last"), r.last());
        }
        p.output("h", run.1[0].all());
        p.output("h_again", run.1[1].all());
        p.output("h_last", run.1[1].last());
        p.minimize(energy(run.0[0].all() * run.0[1].all() + run.0[2].all() * p.parameter("w", 5, Init::Glorot)));
    })
}

/// One value under many names, and names of what is given or fixed.
fn outputs() -> Program {
    record("outputs_of_anything", |p| {
        let (x, c, label) = (p.sequence("x", 3), p.input("c", 5), p.labels_sequence("label"));
        let w = p.parameter("w", [3, 5], Init::Normal(0.5));
        let y = x.dot(w) + c;
        p.output("y", y);
        p.output("y_again", y);
        p.output("x_itself", x);
        p.output("c_itself", c);
        p.output("label_itself", label);
        p.output("w_itself", w);
        p.output("number", p.constant(0.5));
        p.output("numbers", p.full([2, 3], 1.5));
        p.output("part_of_w", w.slice_axis(0, 1..2));
        p.output("part_of_x", x.slice(1..));
        p.output("last_label", label.last());
        p.output("label_as_float", label.to_float());
        p.minimize(energy(y));
    })
}

/// A loop without states, and one whose results nobody wants.
fn stateless() -> Program {
    record("loops_without_states", |p| {
        let x = p.sequence("x", 5);
        let y = p.scan("map", |s| (s.affine("up", s.at(x), 7).tanh(), s.at(x) * 2.0));
        let back = p.scan_reverse("back", |s| s.at(y.0.all()) * s.at(y.0.all()));
        p.output("y", y.0.all());
        p.output("twice", y.1.all());
        p.output("first", back.last());
        p.minimize(energy(back.all()));
    })
}

/// Inputs and parameters that nothing reads, and one that only a dead value reads.
fn unused() -> Program {
    record("unused", |p| {
        let x = p.sequence("x", 3);
        let (nothing, dead) = (p.sequence("nothing", 7), p.input("dead", 3));
        p.labels("label");
        p.parameter("w_unused", [3, 3], Init::Glorot);
        let _ = nothing.tanh().sum() + (dead * 2.0).sum();
        let run = p.scan("rnn", |s| {
            let (h, unread) = (s.state("h", 3), s.state("unread", 3));
            s.next(unread, unread + s.linear("dead", h, 3));
            s.next(h, (s.linear("w", h, 3) + s.at(x)).tanh())
        });
        p.output("h", run.all());
        p.minimize(energy(run.last()));
    })
}

/// Integers as states.
fn integers() -> Program {
    record("integer_states", |p| {
        let (i, first) = (p.labels_sequence("i"), p.labels("first"));
        let table = p.parameter("table", [4, 5], Init::Normal(0.5));
        let run = p.scan("delay", |s| {
            let (one, two, h) = (s.state_from("one", first), s.state_from("two", first), s.state("h", 5));
            s.next(one, s.at(i));
            s.next(two, one);
            let read = table.lookup(two) + table.lookup(one).sin();
            (s.next(h, (h * 0.5 + read).tanh()), two)
        });
        p.output("h", run.0.all());
        p.output("two", run.1.all());
        p.output("end", run.0.state("two"));
        p.minimize(energy(run.0.all()));
    })
}

/// Two indices that are swapped at every step, in a table of five rows, and start where the weights say: at 0 and at
/// 4. Once such states were kept as floats from one run to the next.
fn swapped_integers() -> Program {
    record("swapped_integers", |p| {
        let x = p.sequence("x", 5);
        let table = p.parameter("table", [5, 5], Init::Normal(0.5));
        let largest = |at: usize| {
            let ones = (0..5).map(|i| Init::Constant(f64::from(u8::from(i == at)))).collect();
            p.parameter(&format!("at_{at}"), 5, Init::Pieces(ones)).argmax()
        };
        let (first, second) = (largest(0), largest(4));
        let run = p.scan("swap", |s| {
            let (one, two) = (s.state_from("one", first), s.state_from("two", second));
            let said = (s.at(x) + table.lookup(one)).argmax();
            s.next(one, two);
            s.next(two, said);
            (table.lookup(one) * table.lookup(two).sin() * s.at(x), one)
        });
        p.output("read", run.0.all());
        p.output("one", run.1.all());
        p.minimize(energy(run.0.all()));
    })
}

/// The same sequence read both ways, each loop reading what the other wrote.
fn there_and_back() -> Program {
    record("there_and_back", |p| {
        let x = p.sequence("x", 3);
        let there = p.scan("there", |s| {
            let h = s.state("h", 5);
            s.next(h, (s.linear("h", h, 5) + s.affine("x", s.at(x), 5)).tanh())
        });
        let back = p.scan_reverse("back", |s| {
            let h = s.state_from("h", there.state("h"));
            s.next(h, (s.linear("h", h, 5) + s.at(there.all())).tanh())
        });
        let again = p.scan("again", |s| {
            let h = s.state_from("h", back.last());
            s.next(h, (s.at(there.all()) * s.at(back.all()) + h * back.last()).sin())
        });
        p.output("there", there.all());
        p.output("back", back.all());
        p.output("again", again.all());
        p.minimize(energy(again.all()) + energy(back.all()));
    })
}

/// Sums within the loop that only the loop can make.
fn running_sums() -> Program {
    record("running_sums", |p| {
        let x = p.sequence("x", 5);
        let run = p.scan("sums", |s| {
            let (sum, most, n) = (s.state("sum", 5), s.state("most", 5), s.state("n", ()));
            let n1 = s.next(n, n + 1.0);
            let sum1 = s.next(sum, sum + s.at(x));
            let most1 = s.next(most, most.maximum(s.at(x)));
            (sum1 / n1, most1)
        });
        p.output("mean", run.0.all());
        p.output("most", run.1.all());
        p.output("n", run.0.state("n"));
        let w = p.parameter("w", 5, Init::Normal(0.5));
        p.minimize(energy(run.0.all() * w + run.1.all()));
    })
}

/// State and history: what was two steps before.
fn delays() -> Program {
    record("delayed_by_two", |p| {
        let x = p.sequence("x", 5);
        let run = p.scan("delay", |s| {
            let (h, before) = (s.state("h", 5), s.state("before", 5));
            s.next(before, h);
            s.next(h, (s.linear("h", h, 5) + s.linear("before", before, 5) + s.at(x)).tanh())
        });
        p.output("h", run.all());
        p.output("before", run.state("before"));
        p.minimize(energy(run.all()));
    })
}

/// A step that uses a state after the step only.
fn depth_in_time() -> Program {
    record("two_products_in_a_row", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("deep", |s| {
            let h = s.state("h", 10);
            let z = (s.linear("a", h, 17) + s.affine("x", s.at(x), 17)).tanh();
            let z = s.affine("b", z, 5).sigmoid();
            s.next(h, s.affine("c", z, 10).tanh() + h * 0.5)
        });
        p.output("h", run.all());
        p.minimize(energy(run.last()) + energy(run.state("h")));
    })
}

/// States that are set to a number: what reads them reads a constant that has a row per sample.
fn fixed() -> Program {
    record("states_set_to_numbers", |p| {
        let x = p.sequence("x", [3, 5]);
        let run = p.scan("fix", |s| {
            let (grid, row, h) = (s.state("grid", [5, 2]), s.state("row", 6), s.state("h", 6));
            s.next(grid, s.full([5, 2], 0.75));
            s.next(row, s.full(6, -0.5));
            let z = s.at(x).matmul(grid).reshape(6) + s.linear("row", row, 6);
            s.next(h, (z + h * row).tanh())
        });
        let (grid, row) = (run.state("grid"), run.state("row"));
        p.output("h", run.all());
        p.output("grid", grid);
        p.output("product", x.matmul(grid));
        p.output("through_weight", p.linear("w", row, 7));
        p.output("looked", x.reshape(15).slice(..6) * p.linear("v", row, 6));
        p.minimize(energy(p.value("product")) + energy(p.value("looked")) + energy(p.value("through_weight")));
    })
}

/// A loop over an axis that no input has.
fn generator() -> Program {
    record("generator", |p| {
        let time = p.axis("time");
        let h0 = p.input("h0", 5);
        let run = time.scan("generate", |s| {
            let h = s.state_from("h", h0);
            s.next(h, s.affine("cell", h, 5).sin())
        });
        p.output("h", run.all());
        p.minimize(energy(run.all()));
    })
}

/// Sequences one behind another: states of every kind begin anew, in loops of both directions.
fn anew() -> Program {
    record("states_begin_anew", |p| {
        let (x, i, first) = (p.sequence("x", 3), p.labels_sequence("i"), p.labels("first"));
        let (h0, c0) = (p.parameter("h0", 5, Init::Normal(0.5)), p.input("c0", 5));
        let table = p.parameter("table", [4, 5], Init::Normal(0.5));
        let time = p.axis("time").reset_where(p.sequence("mask", ()));
        let there = time.scan("there", |s| {
            let (h, c, n) = (s.state_from("h", h0), s.state_from("c", c0), s.state("n", ()));
            let (word, kept) = (s.state_from("word", first), s.state_from("kept", c0));
            s.next(word, s.at(i));
            s.next(kept, kept);
            let n1 = s.next(n, n + 1.0);
            let c1 = s.next(c, (s.linear("c", c, 5) + table.lookup(word) + kept).tanh());
            (s.next(h, (s.linear("h", h, 5) + s.affine("x", s.at(x), 5)).tanh() + c1 / n1), word)
        });
        let back = time.scan_reverse("back", |s| {
            let (h, word) = (s.state_from("h", h0), s.state_from("word", first));
            s.next(word, s.at(i));
            s.next(h, (s.linear("h", h, 5) + s.affine("x", s.at(x), 5) + table.lookup(word)).tanh())
        });
        p.output("there", there.0.all());
        p.output("word", there.1.all());
        p.output("back", back.all());
        p.output("back_end", back.last());
        p.output("back_state", back.state("h"));
        p.output("n", there.0.state("n"));
        p.minimize(energy(there.0.all() * back.all()) + energy(back.state("h") * back.last() * there.0.last()));
    })
}

/// Forwards only, so that it can be cut into windows.
fn anew_forwards() -> Program {
    record("states_begin_anew_forwards", |p| {
        let (x, i, first) = (p.sequence("x", 3), p.labels_sequence("i"), p.labels("first"));
        let h0 = p.parameter("h0", 5, Init::Normal(0.5));
        let table = p.parameter("table", [4, 5], Init::Normal(0.5));
        let time = p.axis("time").reset_where(p.sequence("mask", ()));
        let run = time.scan("there", |s| {
            let (h, word) = (s.state_from("h", h0), s.state_from("word", first));
            s.next(word, s.at(i));
            (s.next(h, (s.linear("h", h, 5) + s.affine("x", s.at(x), 5) + table.lookup(word)).tanh()), word)
        });
        let above = time.scan("above", |s| retrograd::cells::lstm(s, s.at(run.0.all()), 3));
        p.output("h", run.0.all());
        p.output("word", run.1.all());
        p.output("above", above.all());
        p.minimize(energy(above.all()) + energy(run.0.all()));
    })
}

/// The same with samples that end.
fn anew_with_lengths() -> Program {
    record("states_begin_anew_with_lengths", |p| {
        let time = p.lengths("lengths").reset_where(p.sequence("mask", ()));
        let (x, h0) = (time.sequence("x", 3), p.parameter("h0", 5, Init::Normal(0.5)));
        let there = time.scan("there", |s| {
            let h = s.state_from("h", h0);
            s.next(h, (s.linear("h", h, 5) + s.affine("x", s.at(x), 5)).tanh())
        });
        let back = time.scan_reverse("back", |s| {
            let h = s.state_from("h", h0);
            s.next(h, (s.linear("h", h, 5) + s.affine("x", s.at(x), 5)).tanh())
        });
        p.output("there", there.all());
        p.output("back", back.all());
        p.output("ends", there.last() * back.last());
        p.minimize((energy(there.all() * back.all())).sum_over(time) + energy(there.last() * back.last()).sum_rows());
    })
}

/// A cell that makes its own states, which are started elsewhere, and begin there again.
fn anew_where_started() -> Program {
    record("states_begin_anew_where_started", |p| {
        let (x, start) = (p.sequence("x", 3), p.parameter("start", 4, Init::Normal(0.5)));
        let twice = start * 2.0;
        let time = p.axis("time").reset_where(p.sequence("mask", ()));
        let run = time.scan("there", |s| {
            s.start("h", start);
            let h = retrograd::cells::lstm(s, s.at(x), 4);
            s.start("c", twice);
            h
        });
        p.output("h", run.all());
        p.minimize(energy(run.all()));
    })
}

/// Loops that read a few features of a sequence, which begin within a row of it.
fn parts_of_a_sequence() -> Program {
    record("parts_of_a_sequence", |p| {
        let x = p.sequence("x", 7);
        let both = p.affine("both", x, 6).tanh();
        let run = p.scan("follow", |s| {
            let h = s.state("h", 2);
            s.next(h, (h * s.at(x).slice(3..5) + s.at(both).slice(4..6)).tanh())
        });
        p.output("both", both);
        p.output("h", run.all());
        p.minimize(energy(run.all()) + energy(both));
    })
}

/// A product in slices of whole vectors, one of which is read by another kernel than the first: it waits for a product of
/// that.
fn product_in_slices() -> Program {
    record("product_in_slices", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("gates", |s| {
            let h = s.state("h", 16);
            let z = s.linear("z", h, 32);
            let first = (z.slice(..16) + s.linear("x", s.at(x), 16)).tanh();
            s.next(h, (z.slice(16..32) + s.linear("u", first, 16)).tanh() * z.slice(16..32).sigmoid())
        });
        p.output("h", run.all());
        p.minimize(energy(run.all()));
    })
}

/// All of them.
pub fn programs() -> Vec<Program> {
    vec![
        parts_of_a_sequence(),
        product_in_slices(),
        swap(),
        ring(),
        held(),
        given_out_as_it_is(),
        outputs(),
        stateless(),
        unused(),
        integers(),
        swapped_integers(),
        there_and_back(),
        running_sums(),
        delays(),
        depth_in_time(),
        fixed(),
        generator(),
        anew(),
        anew_forwards(),
        anew_with_lengths(),
        anew_where_started(),
    ]
}
