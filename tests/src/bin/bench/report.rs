//! Samples by row and runtime, with their medians and ratios.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::runtime::Runtime;

/// Unit of a row's samples.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Milliseconds,
    MegabytesPerSecond,
    ProcessorSeconds,
    Megabytes,
}

impl Unit {
    fn symbol(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::MegabytesPerSecond => "MB/s",
            Self::ProcessorSeconds => "cpu-s",
            Self::Megabytes => "MB",
        }
    }

    /// How many times better `ours` is than `theirs`: more MB/s, or less of anything else.
    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        if self == Self::MegabytesPerSecond { ours / theirs } else { theirs / ours }
    }
}

struct Row {
    title: &'static str,
    unit: Unit,
    /// Samples by runtime, in the order of [`Report::names`].
    samples: Vec<Vec<f64>>,
}

/// Everything measured in one run.
pub(crate) struct Report {
    names: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report on these runtimes; the last one is what the others are compared with.
    pub(crate) fn new(runtimes: &[Runtime]) -> Self {
        Self { names: runtimes.iter().map(|runtime| runtime.name.clone()).collect(), rows: Vec::new() }
    }

    /// Adds a sample to the row of this title.
    pub(crate) fn add(&mut self, title: &'static str, unit: Unit, runtime: &Runtime, sample: f64) {
        let row = match self.rows.iter().position(|row| row.title == title) {
            Some(row) => row,
            None => {
                self.rows.push(Row { title, unit, samples: vec![Vec::new(); self.names.len()] });
                self.rows.len() - 1
            }
        };
        for (name, samples) in self.names.iter().zip(&mut self.rows[row].samples) {
            if *name == runtime.name {
                samples.push(sample);
            }
        }
    }

    /// Medians and ratios as a table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from("| work |");
        let compared = &self.names[..self.names.len() - 1];
        for name in &self.names {
            let _ = write!(table, " {name} |");
        }
        for name in compared {
            let _ = write!(table, " {name}: times better |");
        }
        let _ = writeln!(table, "\n|---|{}", "---:|".repeat(self.names.len() + compared.len()));
        for row in &self.rows {
            let _ = writeln!(table, "{}", row.line());
        }
        table
    }

    /// All samples with their medians.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let runtimes = self.names.iter().zip(&row.samples).map(
                |(name, samples)| json!({"runtime": name, "median": median(samples), "samples": samples}),
            );
            json!({"work": row.title, "unit": row.unit.symbol(), "runtimes": runtimes.collect::<Vec<_>>()})
        });
        json!({ "rows": rows.collect::<Vec<_>>() })
    }
}

impl Row {
    fn line(&self) -> String {
        let mut line = format!("| {} |", self.title);
        let medians: Vec<Option<f64>> = self.samples.iter().map(|samples| median(samples)).collect();
        for value in &medians {
            let _ = match value {
                Some(value) => write!(line, " {} {} |", rounded(*value), self.unit.symbol()),
                None => write!(line, " - |"),
            };
        }
        let theirs = medians.last().copied().flatten();
        for ours in &medians[..medians.len() - 1] {
            let _ = match (ours, theirs) {
                (Some(ours), Some(theirs)) => write!(line, " {} |", rounded(self.unit.ratio(*ours, theirs))),
                _ => write!(line, " - |"),
            };
        }
        line
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

fn rounded(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn more_megabytes_a_second_are_better_and_fewer_milliseconds() {
        assert_eq!(Unit::MegabytesPerSecond.ratio(300.0, 100.0), 3.0);
        assert_eq!(Unit::Milliseconds.ratio(10.0, 80.0), 8.0);
    }

    #[test]
    fn a_runtime_without_samples_gets_a_dash_and_no_ratio() {
        let row = Row { title: "work", unit: Unit::Milliseconds, samples: vec![vec![], vec![80.0]] };
        assert_eq!(row.line(), "| work | - | 80.00 ms | - |");
    }
}
