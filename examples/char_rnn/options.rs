//! What the character model can be told on its command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::common::{not_negative, positive, within};

/// Trains a character model by truncated back-propagation, and lets it write.
#[derive(Parser)]
#[command(name = "char_rnn", allow_negative_numbers = true)]
pub struct Options {
    /// A file of UTF-8 text to learn; without it, the Rust sources of this project
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Kind of cell
    #[arg(long, value_enum, default_value_t = Cell::Lstm)]
    pub cell: Cell,
    /// Layers of cells, one on another
    #[arg(long, default_value_t = 1, value_parser = within(16))]
    pub layers: usize,
    /// Units of each layer
    #[arg(long, default_value_t = 256, value_parser = within(4096))]
    pub units: usize,
    /// Rows of the text that are read at once
    #[arg(long, default_value_t = 32, value_parser = within(4096))]
    pub batch: usize,
    /// Characters that gradients run back through
    #[arg(long, default_value_t = 64, value_parser = within(4096))]
    pub window: usize,
    /// How gradients change the weights
    #[arg(long, value_enum, default_value_t = Rule::Adam)]
    pub optimizer: Rule,
    /// The highest learning rate, after a short warm-up; from there it falls along a cosine. Without it, one that
    /// suits the optimiser
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// Limit of the gradient's norm
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub clip: f64,
    /// Seed of the initial weights and of the sample
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Time for all of the training, that before a resume included [default: 90 if there is no --steps]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Steps of all of the training, those before a resume included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Threads; results have the same bits whatever their number [default: one for each core]
    #[arg(long, value_parser = within(1024))]
    pub threads: Option<usize>,
    /// Where to keep the model: written about twenty times in a run, and at its end
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Goes on from the checkpoint, if there is one
    #[arg(long, requires = "checkpoint")]
    pub resume: bool,
    /// How daring the sample is; at 0 it is always the likeliest character
    #[arg(long, default_value_t = 0.7, value_parser = not_negative)]
    pub temperature: f64,
    /// Characters of the sample
    #[arg(long, value_name = "N", default_value_t = 800)]
    pub sample: usize,
    /// What the sample starts with
    #[arg(long, default_value = "/// ")]
    pub prompt: String,
    /// Where to draw the loss curve
    #[arg(long, value_name = "FILE.svg", default_value = "target/char_rnn.svg")]
    pub curve: PathBuf,
    /// Ends stdout with one line of JSON; all else goes to stderr
    #[arg(long)]
    pub json: bool,
}

/// The library's cells that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Cell {
    Rnn,
    Lstm,
    Gru,
}

/// The library's optimisers.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Rule {
    Sgd,
    Rmsprop,
    Adam,
    Adamw,
}

impl Rule {
    /// A rate that suits it here.
    pub fn usual_rate(self) -> f64 {
        match self {
            Rule::Sgd => 0.3,
            Rule::Rmsprop => 2e-3,
            Rule::Adam | Rule::Adamw => 5e-3,
        }
    }
}

impl Options {
    /// What a checkpoint must be of to go on from it.
    pub fn model(&self) -> String {
        format!("{:?} × {} with {} units", self.cell, self.layers, self.units).to_lowercase()
    }

    /// The part of the training that is behind: of its steps or its time, whichever is nearer to its end.
    pub fn part(&self, steps: u64, seconds: f64) -> f64 {
        let limit = self.seconds.or(self.steps.is_none().then_some(90.0));
        let parts = [limit.map(|limit| seconds / limit), self.steps.map(|limit| steps as f64 / limit as f64)];
        parts.into_iter().flatten().fold(0.0, f64::max).min(1.0)
    }
}
