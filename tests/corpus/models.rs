//! Whole models: what people build of cells.

use retrograd::cells;
use retrograd::prelude::*;

use super::{energy, record};

fn many_to_one() -> Program {
    record("lstm_many_to_one", |p| {
        let rows = p.sequence("rows", 10);
        let label = p.labels("label");
        let run = p.scan("lstm", |s| cells::lstm(s, s.at(rows), 17));
        let logits = p.affine("readout", run.last(), 7);
        p.output("logits", logits);
        p.output("class", logits.argmax());
        p.output("accuracy", logits.accuracy(label).mean_rows());
        p.minimize(logits.cross_entropy(label));
    })
}

/// The loss of each step and sample weighed by a mask, as a sum and as a mean, over all rows and over time.
fn many_to_many() -> Program {
    record("lstm_many_to_many_masked", |p| {
        let x = p.sequence("x", 5);
        let label = p.labels_sequence("label");
        let mask = p.sequence("mask", ());
        let run = p.scan("lstm", |s| cells::lstm(s, s.at(x), 10));
        let logits = p.affine("readout", run.all(), 4);
        let loss = logits.cross_entropy(label);
        p.output("of_samples", loss.masked_mean_time(mask));
        p.output("sums", loss.masked_sum_time(mask));
        p.output("sum", loss.masked_sum(mask));
        p.output("probabilities", logits.softmax());
        p.minimize(loss.masked_mean(mask));
    })
}

fn mask_of_samples() -> Program {
    record("masked_by_sample", |p| {
        let (x, mask) = (p.sequence("x", 3), p.input("mask", ()));
        let run = p.scan("rnn", |s| cells::rnn(s, s.at(x), 5));
        p.minimize(run.all().square().mean_features().masked_mean(mask));
    })
}

fn gru_given_states() -> Program {
    record("gru_state_of_input", |p| {
        let (x, h0) = (p.sequence("x", 3), p.input("h0", 7));
        let run = p.scan("gru", |s| {
            let h = s.state_from("h", h0);
            let [r, z] = s.affine("gates", concat([h, s.at(x)]), 14).sigmoid().split();
            let n = s.affine("candidate", concat([r * h, s.at(x)]), 7).tanh();
            s.next(h, z * h + (1.0 - z) * n)
        });
        p.output("h", run.all());
        p.output("end", run.state("h"));
        p.minimize(energy(run.last()));
    })
}

fn trained_initial_state() -> Program {
    record("state_of_parameter", |p| {
        let x = p.sequence("x", 3);
        let h0 = p.parameter("h0", 7, Init::Normal(0.1));
        let w0 = p.linear("start", p.input("about", 2), 7).tanh();
        let run = p.scan("two", |s| {
            let (a, b) = (s.state_from("a", h0), s.state_from("b", w0));
            let a1 = s.next(a, (s.linear("a", b, 7) + s.affine("x", s.at(x), 7)).tanh());
            s.next(b, (s.linear("b", a, 7) * a1).tanh())
        });
        p.output("a", run.state("a"));
        p.minimize(energy(run.all()));
    })
}

fn stacked() -> Program {
    record("stacked_with_residual", |p| {
        let x = p.sequence("x", 10);
        let run = p.scan("stack", |s| {
            let first = s.scope("first", |s| cells::gru(s, s.at(x), 10));
            let second = s.scope("second", |s| cells::lstm(s, first + s.at(x), 10)) + first;
            s.scope("third", |s| cells::rnn(s, second, 17))
        });
        p.output("y", run.all());
        p.minimize(energy(run.all()));
    })
}

/// Layers one scan behind another instead of one within another.
fn layers_of_scans() -> Program {
    record("layers_of_scans", |p| {
        let x = p.sequence("x", 5);
        let first = p.scan("first", |s| cells::gru(s, s.at(x), 7)).all();
        let second = p.scan("second", |s| cells::lstm(s, s.at(first), 7)).all();
        let both = first + second;
        p.output("y", p.scan("third", |s| cells::rnn(s, s.at(both), 3)).all());
        p.minimize(energy(p.value("y")));
    })
}

fn bidirectional() -> Program {
    record("bidirectional", |p| {
        let x = p.sequence("x", 5);
        let forth = p.scan("forth", |s| cells::lstm(s, s.at(x), 5));
        let back = p.scan_reverse("back", |s| cells::lstm(s, s.at(x), 3));
        let both = concat([forth.all(), back.all()]);
        p.output("both", both);
        p.output("ends", concat([forth.last(), back.last()]));
        let label = p.labels_sequence("label");
        p.minimize(p.affine("readout", both, 3).cross_entropy(label));
    })
}

fn encoder_decoder() -> Program {
    record("encoder_decoder", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (x, y) = (source.sequence("x", 4), target.labels("y"));
        let encoded = source.scan("encoder", |s| cells::gru(s, s.at(x), 10));
        let start = encoded.last();
        let decoded = target.scan("decoder", |s| {
            let (h, previous) = (s.state_from("h", start), s.state("previous", 6));
            let h1 = s.next(h, s.affine("cell", concat([h, previous, start]), 10).tanh());
            let logits = s.affine("readout", h1, 6);
            s.next(previous, logits.softmax());
            logits
        });
        p.output("logits", decoded.all());
        p.minimize(decoded.all().cross_entropy(y));
    })
}

/// The decoder looks back at all the encoder has said, by a sum over its steps.
fn two_axes_summary() -> Program {
    record("two_axes_summary", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (x, y) = (source.sequence("x", 3), target.sequence("y", 3));
        let encoded = source.scan_reverse("encoder", |s| cells::rnn(s, s.at(x), 5));
        let summary = encoded.all().mean_time();
        let decoded = target.scan("decoder", |s| {
            let h = s.state_from("h", encoded.last());
            s.next(h, (s.linear("h", h, 5) + s.affine("y", s.at(y), 5) + summary).tanh())
        });
        p.output("all", decoded.all());
        p.output("encoded", encoded.all());
        p.minimize(decoded.all().mse(p.affine("expected", y, 5)));
    })
}

/// One table for words read and for words said.
fn shared_embedding() -> Program {
    record("shared_embedding", |p| {
        let (word, next) = (p.labels_sequence("word"), p.labels_sequence("next"));
        let table = p.parameter("table", [11, 6], Init::Normal(0.3));
        let run = p.scan("gru", |s| cells::gru(s, table.lookup(s.at(word)), 6));
        let logits = run.all().dot(table.transpose());
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(next));
    })
}

/// A generator that reads what it said: argmax of its own logits looks up its next input.
fn feedback() -> Program {
    record("argmax_feedback", |p| {
        let (x, first) = (p.sequence("x", 3), p.labels("first"));
        let run = p.scan("speak", |s| {
            let (h, said) = (s.state("h", 7), s.state_from("said", first));
            let read = s.embedding("words", said, 5, 4);
            let h1 = s.next(h, s.affine("cell", concat([h, read, s.at(x)]), 7).tanh());
            let logits = s.affine("readout", h1, 5);
            let word = s.next(said, logits.argmax());
            (logits, word)
        });
        p.output("logits", run.0.all());
        p.output("words", run.1.all());
        p.output("last_word", run.1.last());
        p.minimize(energy(run.0.all()));
    })
}

/// A generator that reads the mean of all words it might have said, weighed by how likely each is: a smooth feedback.
fn expectation_feedback() -> Program {
    record("expectation_feedback", |p| {
        let (time, h0) = (p.axis("time"), p.input("h0", 7));
        let table = p.parameter("table", [5, 4], Init::Normal(0.5));
        let run = time.scan("speak", |s| {
            s.start("h", h0);
            let said = s.state("said", 5);
            let h = cells::rnn(s, said.dot(table), 7);
            s.next(said, s.affine("readout", h, 5).softmax())
        });
        p.output("said", run.all());
        p.minimize(energy(run.all()));
    })
}

/// A generator that reads what it drew: one to many, the chance being an input.
fn sampled_feedback() -> Program {
    record("sampled_feedback", |p| {
        let (noise, about) = (p.sequence("noise", 5), p.input("about", 3));
        let run = p.scan("speak", |s| {
            let said = s.state("said", 4);
            let h = cells::conditioned_rnn(s, said, about, 7);
            let logits = s.affine("readout", h, 5);
            let word = logits.sample(s.at(noise).sigmoid());
            s.next(said, s.embedding("words", word, 5, 4));
            (logits, word)
        });
        p.output("words", run.1.all());
        p.minimize(energy(run.0.all()));
    })
}

/// Scheduled sampling: each step and sample reads the true word with a probability, else what it said itself.
fn scheduled_sampling() -> Program {
    record("scheduled_sampling", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (x, before, next) = (source.sequence("x", 3), target.labels("before"), target.labels("next"));
        let (uniform, truth) = (target.sequence("uniform", ()), p.shared("truth", ()));
        let encoder = source.scan("encoder", |s| cells::gru(s, s.at(x), 7));
        let run = target.scan("decoder", |s| {
            s.start("h", encoder.last());
            let own = s.state("own", 4);
            let told = s.embedding("words", s.at(before), 5, 4);
            let h = cells::gru(s, select(s.at(uniform).lt(truth), told, own), 7);
            let logits = s.affine("readout", h, 5);
            s.next(own, s.embedding("words", logits.argmax(), 5, 4));
            logits
        });
        p.output("logits", run.all());
        p.minimize(run.all().cross_entropy(next));
    })
}

/// A deep encoder, all of whose states start a decoder of the same cells.
fn deep_encoder_decoder() -> Program {
    record("deep_encoder_decoder", |p| {
        let (source, target) = (p.axis("source"), p.axis("target"));
        let (x, before, next) = (source.sequence("x", 3), target.labels("before"), target.labels("next"));
        fn deep<'r>(s: &Step<'r>, x: Expr<'r>) -> Expr<'r> {
            let residual: cells::Cell = &|s, x, units| cells::residual(s, x, units, &cells::gru_reset_after);
            cells::stacked(s, x, &[(&cells::lstm, 7), (residual, 7)])
        }
        let encoder = source.scan("encoder", |s| deep(s, s.at(x)));
        let decoder = target.scan("decoder", |s| {
            for name in ["layer1.h", "layer1.c", "layer2.h"] {
                s.start(name, encoder.state(name));
            }
            deep(s, s.embedding("words", s.at(before), 6, 3))
        });
        let logits = p.affine("readout", decoder.all(), 6);
        p.output("logits", logits);
        p.minimize(logits.cross_entropy(next));
    })
}

/// A captioner: what is on an image starts a decoder that looks at the image's places at each step.
fn captioner() -> Program {
    record("captioner", |p| {
        let (before, next) = (p.labels_sequence("before"), p.labels_sequence("next"));
        let grid = p.input("grid", [5, 6]);
        let start = p.affine("start", grid.mean_axis(0).reshape(6), 7).tanh();
        let words = p.embedding("words", before, 6, 3);
        let (h, context, weights) = p.scan("decoder", |s| {
            s.start("h", start);
            cells::additive_attention_decoder(s, s.at(words), grid, 7)
        });
        let logits = p.affine("readout", concat([h.all(), context.all()]), 6);
        p.output("weights", weights.all());
        p.minimize(logits.cross_entropy(next));
    })
}

/// A translator that looks back at what its encoder remembered of texts of different lengths.
fn translator() -> Program {
    record("translator", |p| {
        let (source, target) = (p.axis("source").lengths("lengths"), p.axis("target"));
        let (x, before, next) = (source.sequence("x", 3), target.labels("before"), target.labels("next"));
        let encoder = source.scan("encoder", |s| {
            let h = cells::gru(s, s.at(x), 5);
            cells::remembered_last(s, h, 4)
        });
        let (h, _, weights) = target.scan("decoder", |s| {
            s.start("h", encoder.state("h"));
            let words = s.embedding("words", s.at(before), 6, 3);
            cells::dot_attention_decoder(s, words, cells::Places::of(encoder), 5)
        });
        p.output("weights", weights.all());
        p.minimize(p.affine("readout", h.all(), 6).cross_entropy(next));
    })
}

/// Two layers in both directions of time; with lengths, each sample from its own end.
fn deep_bidirectional(lengths: bool) -> Program {
    record(if lengths { "bidirectional_with_lengths" } else { "bidirectional_deep" }, |p| {
        let time = if lengths { p.lengths("lengths") } else { p.axis("time") };
        let (x, label) = (time.sequence("x", 3), time.labels("label"));
        let first = cells::bidirectional(p, time, "first", x, 5, &cells::gru_reset_after);
        let second = cells::bidirectional(p, time, "second", first.all(), 3, &cells::lstm);
        let logits = p.affine("readout", second.all(), 3);
        p.output("all", second.all());
        p.output("last", second.last());
        p.minimize(logits.cross_entropy(label).mean_over(time) + energy(second.last()).mean_rows());
    })
}

/// A list of inputs in, a list of outputs out.
fn static_rnn() -> Program {
    record("static_rnn", |p| {
        let inputs = ["a", "b", "c"].map(|name| p.input(name, 3));
        let run = p.static_rnn("cell", &inputs, |s, x| cells::lstm(s, x, 5));
        for (name, h) in ["h_a", "h_b", "h_c"].into_iter().zip(run.all()) {
            p.output(name, *h);
        }
        p.output("c", run.state("c"));
        p.minimize(run.all().iter().map(|h| energy(*h)).reduce(|a, b| a + b).expect("three outputs"));
    })
}

fn one_hot() -> Program {
    record("one_hot", |p| {
        let (class, words) = (p.labels("class"), p.labels_sequence("words"));
        let run = p.scan("rnn", |s| cells::rnn(s, concat([s.at(words).one_hot(3), class.one_hot(5)]), 7));
        p.output("h", run.all());
        p.output("hot", words.one_hot(3) * 2.0);
        p.minimize(energy(run.all()));
    })
}

/// Each step attends over a grid of notes.
fn attention() -> Program {
    record("attention", |p| {
        let (x, notes) = (p.sequence("x", 3), p.input("notes", [5, 6]));
        let keys = p.linear("keys", notes, 7);
        let run = p.scan("attend", |s| {
            let h = s.state("h", 7);
            let scores = keys.matmul(h) * 0.4;
            let read = scores.softmax().matmul(notes);
            let h1 = s.next(h, s.affine("cell", concat([h, s.at(x), read]), 7).tanh());
            (h1, scores.softmax())
        });
        p.output("h", run.0.all());
        p.output("weights", run.1.all());
        p.minimize(energy(run.0.all()));
    })
}

/// Queries, keys and values of a grid, all in the step.
fn self_attention() -> Program {
    record("self_attention", |p| {
        let x = p.sequence("x", [3, 5]);
        let run = p.scan("attend", |s| {
            let memory = s.state("memory", [3, 5]);
            let z = memory + s.at(x);
            let [q, k, v] = s.linear("qkv", z, 15).split();
            let attended = (q.matmul(k.transpose()) * 0.45).softmax().matmul(v);
            s.next(memory, s.layer_norm("norm", attended + z).tanh())
        });
        p.output("memory", run.all());
        p.minimize(energy(run.all()));
    })
}

/// Weights that are written as the run goes: outer products of what was seen.
fn fast_weights() -> Program {
    record("fast_weights", |p| {
        let x = p.sequence("x", 5);
        let run = p.scan("fast", |s| {
            let (a, h) = (s.state("a", [5, 5]), s.state("h", 5));
            let z = (s.linear("h", h, 5) + s.affine("x", s.at(x), 5)).tanh();
            let a1 = s.next(a, a * 0.9 + z.outer(z) * 0.5);
            s.next(h, s.layer_norm("norm", z + a1.matmul(z)).tanh())
        });
        p.output("h", run.all());
        p.output("a", run.state("a"));
        p.minimize(energy(run.all()));
    })
}

/// A matrix that a step corrects by what it tells of a key (Yang et al. 2024), in products as a paper writes them.
fn delta_net() -> Program {
    record("delta_net", |p| {
        let x = p.sequence("x", 4);
        let run = p.scan("delta", |s| {
            let m = s.state("m", [7, 5]);
            let [k, q] = s.affine("keys", s.at(x), 10).split();
            let (k, v) = (k.softmax(), s.affine("value", s.at(x), 7));
            let rate = s.affine("rate", s.at(x), 1).sigmoid();
            let m1 = s.next(m, m + (rate * (v - m.matmul(k))).outer(k));
            m1.matmul(q)
        });
        p.output("y", run.all());
        p.output("m", run.state("m"));
        p.minimize(energy(run.all()));
    })
}

fn losses() -> Program {
    record("losses", |p| {
        let (x, y) = (p.sequence("x", 3), p.sequence("y", 5));
        let (label, labels) = (p.labels_sequence("label"), p.declare("labels", Type::int(Extent::Batch, 2)));
        let h = p.scan("rnn", |s| cells::rnn(s, s.at(x), 5)).all();
        let logits = p.affine("logits", h, 10);
        let several = p.affine("several", h.last(), 6).reshape([2, 3]).cross_entropy(labels);
        let losses = [h.mse(y), h.mae(y), h.binary_cross_entropy(y.sigmoid()), logits.cross_entropy(label)];
        for (name, loss) in ["mse", "mae", "bce", "ce"].into_iter().zip(losses) {
            p.output(name, loss);
            p.output(&format!("{name}_time"), loss.mean_time());
            p.output(&format!("{name}_sum"), loss.sum_rows());
        }
        p.output("several", several);
        let [a, b, c, d] = losses.map(Expr::mean_rows);
        p.minimize(a + b * 2.0 + c * 0.5 + d + several.mean_rows());
    })
}

fn sum_over_time() -> Program {
    record("loss_summed_over_time", |p| {
        let (x, y) = (p.sequence("x", 3), p.sequence("y", 1));
        let h = p.scan("lstm", |s| cells::lstm(s, s.at(x), 7)).all();
        p.minimize(p.affine("readout", h, 1).mse(y).sum_time());
    })
}

fn readout_between() -> Program {
    record("mlp_before_and_after", |p| {
        let x = p.sequence("x", 7);
        let z = p.affine("up", p.affine("in", x, 17).gelu(), 10).silu();
        let run = p.scan("rnn", |s| cells::rnn_split(s, s.at(z), 10));
        let y = p.rms_norm("norm", run.all());
        p.output("y", p.affine("out", y, 3).log_softmax());
        p.minimize(energy(p.value("y")));
    })
}

/// A parameter that is replaced where it stands, and whose old value is read once more when vector maths are done: at a
/// later level of the same kernel.
fn overwritten() -> Program {
    record("overwritten", |p| {
        let w = p.parameter("w", 24, Init::Normal(0.5));
        let late = (w.exp() * 0.1).tanh();
        p.update(w, w * 2.0 + 1.0);
        p.output("sum", late + w);
        p.output("scaled", late * (w * 3.0));
    })
}

/// Parameters that take each other's place, and outputs that are what they were before.
fn exchanged() -> Program {
    record("exchanged", |p| {
        let [a, b, c] = ["a", "b", "c"].map(|name| p.parameter(name, 5, Init::Normal(0.5)));
        p.update(a, b);
        p.update(b, a);
        p.update(c, c.exp());
        p.output("a", a);
        p.output("part_of_c", c.slice(1..4));
        p.output("twice_c", c + c);
    })
}

/// Matrices that the run replaces, and of which the new ones are multiplied by: an output is made of what is next.
fn next_matrices() -> Program {
    record("next_matrices", |p| {
        let (a, b) = (p.parameter("a", [4, 4], Init::Normal(0.5)), p.parameter("b", [4, 4], Init::Normal(0.5)));
        let x = p.input("x", 4);
        let (next_a, next_b) = (a.matmul(a).tanh(), b.tanh());
        p.update(a, next_a);
        p.update(b, next_b);
        p.output("a", x.matmul(next_a));
        p.output("b", x.matmul(next_b) + x.matmul(next_b.transpose()));
        let run = p.scan("steps", |s| {
            let h = s.state("h", 4);
            s.next(h, h.matmul(next_b) + x)
        });
        p.output("steps", run.last());
    })
}

/// A parameter that the run replaces.
fn updated() -> Program {
    let joint = record("updates", |p| {
        let x = p.sequence("x", 3);
        let run = p.scan("rnn", |s| cells::rnn(s, s.at(x), 5));
        p.minimize(energy(run.all()));
    });
    let joint = joint.backward().expect("an objective");
    let updated = joint.extend(|p| {
        for name in ["rnn.cell.w", "rnn.cell.b"] {
            p.update(p.value(name), p.value(name) - p.value(&format!("d.{name}")) * 0.1);
        }
    });
    updated.expect("no mistakes").without_objective()
}

/// All models.
pub fn programs() -> Vec<Program> {
    vec![
        many_to_one(),
        many_to_many(),
        mask_of_samples(),
        gru_given_states(),
        trained_initial_state(),
        stacked(),
        layers_of_scans(),
        bidirectional(),
        encoder_decoder(),
        two_axes_summary(),
        shared_embedding(),
        feedback(),
        expectation_feedback(),
        sampled_feedback(),
        scheduled_sampling(),
        deep_encoder_decoder(),
        captioner(),
        translator(),
        deep_bidirectional(false),
        deep_bidirectional(true),
        static_rnn(),
        one_hot(),
        attention(),
        self_attention(),
        fast_weights(),
        delta_net(),
        losses(),
        sum_over_time(),
        readout_between(),
        overwritten(),
        exchanged(),
        next_matrices(),
        updated(),
    ]
}
