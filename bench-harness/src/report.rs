//! Tables for the terminal.

use crate::engine::Benchmark;
use crate::results::{Row, Run};

/// Prints a run as an aligned table. Rows with a bar say whether they met it; failed rows say why they have no figure.
pub fn print(run: &Run) {
    let machine = &run.machine;
    println!(
        "{}, {} cores, {} GiB, Linux {}, {} on {}; commit {}",
        machine.cpu,
        machine.cores,
        machine.memory_bytes >> 30,
        machine.kernel,
        machine.file_system,
        machine.device,
        run.commit
    );
    for note in &run.notes {
        println!("note: {note}");
    }
    print!("{}", table(&run.rows));
}

/// The table's text.
pub fn table(rows: &[Row]) -> String {
    let head = ["", "median", "min..max", "unit", "p99", "p99.9", "n", ""].map(str::to_owned);
    align(&std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>(), &[1, 2, 4, 5, 6])
}

/// The list of benchmarks, with their bars and how they are measured.
pub fn list<'a>(benchmarks: impl Iterator<Item = &'a Benchmark>) -> String {
    let lines: Vec<_> = benchmarks
        .map(|benchmark| {
            let bar = benchmark.bar.text().unwrap_or_else(|| "reported".to_owned());
            [benchmark.name.to_owned(), bar, benchmark.what.to_owned(), benchmark.how.to_owned()]
        })
        .collect();
    align(&lines, &[])
}

/// Lines of cells, one under the other; the columns of `right` end at the same place, the others start there.
fn align<const N: usize>(lines: &[[String; N]], right: &[usize]) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; 8] {
    let (median, range) = row.spread.map_or_else(Default::default, |spread| {
        (figure(spread.median), format!("{}..{}", figure(spread.min), figure(spread.max)))
    });
    let (p99, p999) = row
        .percentiles
        .map_or_else(Default::default, |percentiles| (figure(percentiles.p99), figure(percentiles.p999)));
    [row.name.clone(), median, range, row.unit.clone(), p99, p999, row.n.to_string(), verdict(row)]
}

/// `bar <= 1.3: 1.12 ok`, or what takes its place.
fn verdict(row: &Row) -> String {
    if let Some(failure) = &row.failure {
        return format!("FAILED: {failure}");
    }
    match (&row.bar, row.met, row.spread) {
        (Some(bar), Some(met), Some(spread)) => {
            format!("bar {bar}: {} {}", figure(spread.median), if met { "ok" } else { "MISSED" })
        }
        _ => String::new(),
    }
}

/// Three digits that count, or all that stand before the point.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Bar;

    #[test]
    fn a_missed_bar_and_a_failure_are_printed_as_plainly_as_a_success() {
        let rows = [
            Row::figure("good", "ratio", &[1.118], Bar::AtMost(1.3)),
            Row::figure("bad", "ratio", &[1.5, 1.4], Bar::AtMost(1.3)),
            Row::failed("none", Bar::AtMost(2.0), "the node did not start"),
        ];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("bar <= 1.3: 1.12 ok"), "{text}");
        assert!(lines[2].contains("1.40..1.50") && lines[2].ends_with("bar <= 1.3: 1.45 MISSED"), "{text}");
        assert!(lines[3].ends_with("FAILED: the node did not start"), "{text}");
    }
}
